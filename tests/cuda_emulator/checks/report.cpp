// SPDX-License-Identifier: Apache-2.0
#include "report.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "../counters/json.h"
#include "../machine/block.h"
#include "../machine/program.h"

namespace longclock::emulator {
namespace {

constexpr size_t kMostReports = 100;  // of different faults, before a launch is stopped

struct Kind {
  const char* name;
  int error;  // cudaError_t of the launch
};
constexpr Kind kKinds[] = {
    {"out of bounds", 700},
    {"freed memory", 700},
    {"write to constant memory", 700},
    {"misaligned", 716},
    {"uninitialised value", 719},
    {"race", 719},
    {"asynchronous copy not waited for", 719},
    {"divergent barrier", 719},
    {"mismatched barrier", 719},
    {"lanes missing from the mask", 719},
    {"deadlock", 719},
    {"trap", 719},
    {"assertion", 710},
    {"unknown instruction", 715},
    {"leak", 0},
};
static_assert(std::size(kKinds) == static_cast<size_t>(Fault::leak) + 1);

struct Reports {
  std::mutex mutex;
  std::vector<Report> all;
  std::map<std::tuple<std::string, uint32_t, Fault>, size_t>
      known;  // kernel, pc, kind -> index of all
};
Reports& reports() {
  static Reports& made = *new Reports;  // leaks are reported after static destructors
  return made;
}

std::string place(const ptx::Module& module, int32_t location) {
  const ptx::Location& at = module.locations[static_cast<size_t>(location)];
  const auto file = module.files.find(at.file);
  return (file == module.files.end() ? "?" : file->second) + ":" + std::to_string(at.line);
}

std::string three(const uint32_t v[3]) {
  return "(" + std::to_string(v[0]) + ", " + std::to_string(v[1]) + ", " + std::to_string(v[2]) +
         ")";
}

void print(const Report& report) { std::fputs((report.text() + "\n").c_str(), stderr); }

}  // namespace

std::string_view fault_name(Fault fault) { return kKinds[static_cast<size_t>(fault)].name; }
int fault_error(Fault fault) { return kKinds[static_cast<size_t>(fault)].error; }

std::string source_of(const Program& program, uint32_t pc) {
  if (pc >= program.code.size()) return "an unknown place";
  const ptx::Instruction& source = program.source(pc);
  if (source.location < 0) return "PTX line " + std::to_string(source.line);
  return place(*program.module, source.location);
}

std::vector<std::string> places_of(const Program& program, uint32_t pc) {
  std::vector<std::string> found;
  for (int32_t at = program.source(pc).location; at >= 0;
       at = program.module->locations[static_cast<size_t>(at)].inlined_at) {
    found.push_back(place(*program.module, at));
  }
  return found;
}

std::string_view space_name(uint8_t space) {
  switch (static_cast<ptx::Space>(space)) {
    case ptx::Space::param:
      return "parameter";
    case ptx::Space::local:
      return "local";
    case ptx::Space::shared:
      return "shared";
    case ptx::Space::constant:
      return "constant";
    default:
      return "global";
  }
}

void report(Warp& w, const Instruction& in, unsigned lane, Fault fault, uint64_t address,
            const std::string& message) {
  Grid& grid = *w.block->grid;
  const Program& program = *grid.program;
  int none = 0;
  grid.error.compare_exchange_strong(none, fault_error(fault));
  const auto pc = static_cast<uint32_t>(&in - program.code.data());

  Reports& r = reports();
  const std::lock_guard lock(r.mutex);
  const auto [found, is_new] = r.known.try_emplace({program.name, pc, fault}, r.all.size());
  if (!is_new) {
    ++r.all[found->second].count;
    return;
  }
  Report made;
  made.kind = fault_name(fault);
  made.message = message;
  made.kernel = program.name;
  made.address = address;
  const auto& source = *static_cast<const ptx::Instruction*>(in.source);
  made.instruction = source.text;
  if (source.location >= 0) {
    const ptx::Location& at = program.module->locations[static_cast<size_t>(source.location)];
    const auto file = program.module->files.find(at.file);
    if (file != program.module->files.end()) made.file = file->second;
    made.line = at.line;
    for (int32_t outer = at.inlined_at; outer >= 0;
         outer = program.module->locations[static_cast<size_t>(outer)].inlined_at) {
      made.inlined_at.push_back(place(*program.module, outer));
    }
  }
  std::copy_n(w.block->index, 3, made.block);
  w.block->thread_of(w, lane, made.thread);
  if (grid.options.print) print(made);
  r.all.push_back(std::move(made));
  if (r.all.size() >= kMostReports) grid.stop = true;
}

void add_report(Report report) {
  Reports& r = reports();
  const std::lock_guard lock(r.mutex);
  if (options().print) print(report);
  r.all.push_back(std::move(report));
}

std::vector<Report> take_reports() {
  Reports& r = reports();
  const std::lock_guard lock(r.mutex);
  r.known.clear();
  return std::exchange(r.all, {});
}

std::string Report::text() const {
  std::string out = "longclock emulator: " + kind + ": " + message;
  if (kernel.empty()) return out;
  out += "\n  in kernel " + kernel;
  if (!file.empty()) out += "\n  at " + file + ":" + std::to_string(line);
  for (const std::string& outer : inlined_at) out += "\n     inlined at " + outer;
  out += "\n  block " + three(block) + ", thread " + three(thread);
  if (count > 1) out += ", and " + std::to_string(count - 1) + " times more";
  out += "\n  " + instruction;
  return out;
}

}  // namespace longclock::emulator

const char* longclock_emulator_take_reports() {
  using namespace longclock::emulator;
  JsonWriter json;
  json.open('[');
  for (const Report& r : take_reports()) {
    json.open('{').field("kind", r.kind).field("message", r.message).field("kernel", r.kernel);
    json.field("file", r.file).field("line", uint64_t{r.line}).field("instruction", r.instruction);
    json.field("address", r.address).field("count", r.count).field("text", r.text());
    json.field("block", r.block).field("thread", r.thread);
    json.key("inlined_at").open('[');
    for (const std::string& outer : r.inlined_at) json.value(outer);
    json.close(']').close('}');
  }
  json.close(']');
  thread_local std::string text;
  text = json.text();
  return text.c_str();
}
