// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "../emulator.h"
#include "device_profile.h"

namespace longclock::emulator {
namespace {

struct NamedCheck {
  std::string_view name;
  uint32_t bits;
};
constexpr NamedCheck kChecks[] = {
    {"all", kCheckAll},       {"none", 0},
    {"bounds", kCheckBounds}, {"initialised", kCheckInitialised},
    {"races", kCheckRaces},   {"sync", kCheckSync},
    {"leaks", kCheckLeaks},
};

std::optional<uint32_t> parse_checks(std::string_view text) {
  uint32_t checks = 0;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view name = text.substr(0, comma);
    const NamedCheck* found = nullptr;
    for (const NamedCheck& check : kChecks) {
      if (check.name == name) found = &check;
    }
    if (found == nullptr) return std::nullopt;
    checks |= found->bits;
    if (comma == std::string_view::npos) return checks;
    text.remove_prefix(comma + 1);
  }
}

std::string checks_text(uint32_t checks) {
  if (checks == kCheckAll) return "all";
  std::string text;
  for (const NamedCheck& check : kChecks) {
    if (check.bits == kCheckAll || (check.bits & checks) == 0) continue;
    if (!text.empty()) text += ',';
    text += check.name;
  }
  return text.empty() ? "none" : text;
}

template <class T>
bool parse_number(std::string_view text, T& out) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || text.empty()) return false;
  out = value;
  return true;
}

bool parse_switch(std::string_view text, bool& out) {
  if (text != "0" && text != "1") return false;
  out = text == "1";
  return true;
}

bool set_option(Options& options, std::string_view key, std::string_view value) {
  if (key == "sm") {
    int sm = 0;
    if (!parse_number(value, sm) || find_profile(sm) == nullptr) return false;
    options.sm = sm;
    return true;
  }
  if (key == "checks") {
    const std::optional<uint32_t> checks = parse_checks(value);
    if (checks) options.checks = *checks;
    return checks.has_value();
  }
  if (key == "counters") return parse_switch(value, options.counters);
  if (key == "print") return parse_switch(value, options.print);
  if (key == "seed") return parse_number(value, options.seed);
  if (key == "threads") return parse_number(value, options.threads);
  if (key == "capturing") return parse_switch(value, options.capturing);
  if (key == "blocks") {
    unsigned blocks = 0;
    if (!parse_number(value, blocks) || blocks == 0 || blocks > kMaxGridX) return false;
    options.blocks = blocks;
    return true;
  }
  if (key == "multiprocessors") {
    unsigned count = 0;
    if (!parse_number(value, count) || count > kMaxMultiprocessors) return false;
    options.multiprocessors = count;
    return true;
  }
  return false;
}

Options read_environment() {
  Options out;
  constexpr const char* kVariables[][2] = {
      {"sm", "LONGCLOCK_EMULATOR_SM"},
      {"checks", "LONGCLOCK_EMULATOR_CHECKS"},
      {"counters", "LONGCLOCK_EMULATOR_COUNTERS"},
      {"seed", "LONGCLOCK_EMULATOR_SEED"},
      {"threads", "LONGCLOCK_EMULATOR_THREADS"},
  };
  for (const auto& [key, variable] : kVariables) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0' || set_option(out, key, value)) continue;
    std::fprintf(stderr, "longclock emulator: %s has the unknown value \"%s\"; it is ignored\n",
                 variable, value);
  }
  return out;
}

}  // namespace

Options& options() {
  static Options* const options = new Options(read_environment());  // kernels run in destructors
  return *options;
}

}  // namespace longclock::emulator

extern "C" int longclock_emulator_set(const char* key, const char* value) {
  namespace emulator = longclock::emulator;
  if (key == nullptr || value == nullptr) return 1;
  return emulator::set_option(emulator::options(), key, value) ? 0 : 1;
}

// nullptr for an unknown key.
extern "C" const char* longclock_emulator_get(const char* key) {
  namespace emulator = longclock::emulator;
  if (key == nullptr) return nullptr;
  const emulator::Options& options = emulator::options();
  const std::string_view name = key;
  static thread_local std::string text;
  if (name == "sm") {
    text = std::to_string(options.sm);
  } else if (name == "checks") {
    text = emulator::checks_text(options.checks);
  } else if (name == "counters") {
    text = options.counters ? "1" : "0";
  } else if (name == "print") {
    text = options.print ? "1" : "0";
  } else if (name == "seed") {
    text = std::to_string(options.seed);
  } else if (name == "threads") {
    text = std::to_string(options.threads);
  } else if (name == "capturing") {
    text = options.capturing ? "1" : "0";
  } else if (name == "blocks") {
    text = std::to_string(options.blocks);
  } else if (name == "multiprocessors") {
    text = std::to_string(options.multiprocessors);
  } else {
    return nullptr;
  }
  return text.c_str();
}
