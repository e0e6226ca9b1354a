// SPDX-License-Identifier: Apache-2.0
// The functions of the device runtime: printf, assert, malloc and free in kernels.
#include <bit>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#include "../checks/report.h"
#include "../memory/memory_map.h"
#include "block.h"
#include "calls.h"
#include "lanes.h"
#include "scheduler.h"

namespace longclock::emulator {
namespace {

template <class T>
T read_local(const Warp& w, unsigned lane, const Range& range) {
  T value{};
  std::memcpy(&value, w.local + lane * w.local_stride + range.offset, sizeof(T));
  return value;
}

const char* string_at(uint64_t address) {
  return memory_map().find(address) != nullptr ? reinterpret_cast<const char*>(address)
                                               : "(not a string)";
}

// Arguments lie as C promotes them, each at a multiple of its size.
std::string format(const char* text, const std::byte* arguments) {
  std::string out;
  size_t at = 0;
  const auto next = [&](auto& value) {
    at = (at + sizeof(value) - 1) / sizeof(value) * sizeof(value);
    if (arguments != nullptr) std::memcpy(&value, arguments + at, sizeof(value));
    at += sizeof(value);
  };
  while (*text != 0) {
    if (*text != '%') {
      out += *text++;
      continue;
    }
    if (text[1] == '%') {
      out += '%';
      text += 2;
      continue;
    }
    std::string spec(1, *text++);
    bool is_long = false;
    while (*text != 0 && std::strchr("-+ #0123456789.*lhzjt", *text) != nullptr) {
      if (*text == '*') {
        int width = 0;
        next(width);
        spec += std::to_string(width);
      } else if (std::strchr("lzjt", *text) != nullptr) {
        is_long = true;
      } else if (*text != 'h') {
        spec += *text;
      }
      ++text;
    }
    if (*text == 0) break;
    const char kind = *text++;
    char buffer[512];
    const auto print = [&](const std::string& f, auto value) {
      std::snprintf(buffer, sizeof(buffer), f.c_str(), value);
      out += buffer;
    };
    if (std::strchr("diuxXoc", kind) != nullptr) {
      if (is_long) {
        long long value = 0;
        next(value);
        print(spec + "ll" + kind, value);
      } else {
        int value = 0;
        next(value);
        print(spec + kind, value);
      }
    } else if (std::strchr("fFeEgGaA", kind) != nullptr) {
      double value = 0;
      next(value);
      print(spec + kind, value);
    } else if (kind == 's') {
      uint64_t value = 0;
      next(value);
      print(spec + kind, string_at(value));
    } else if (kind == 'p') {
      void* value = nullptr;
      next(value);
      print(spec + kind, value);
    }
  }
  return out;
}

}  // namespace

void call_builtin(Warp& w, const Instruction& in, uint32_t lanes, const CallSite& site) {
  for_lanes(lanes, [&](unsigned l) {
    uint64_t result = 0;
    switch (site.builtin) {
      case Builtin::vprintf: {
        static std::mutex& mutex = *new std::mutex;
        const std::string text = format(
            string_at(read_local<uint64_t>(w, l, site.arguments.at(0))),
            reinterpret_cast<const std::byte*>(read_local<uint64_t>(w, l, site.arguments.at(1))));
        const std::lock_guard lock(mutex);
        std::fwrite(text.data(), 1, text.size(), stdout);
        result = text.size();
        break;
      }
      case Builtin::assertfail:
        report(w, in, l, Fault::assertion, 0,
               std::string("assertion `") +
                   string_at(read_local<uint64_t>(w, l, site.arguments.at(0))) + "` failed at " +
                   string_at(read_local<uint64_t>(w, l, site.arguments.at(1))) + ":" +
                   std::to_string(read_local<uint32_t>(w, l, site.arguments.at(2))));
        break;
      case Builtin::malloc: {
        Allocation* made = memory_map().allocate(read_local<uint64_t>(w, l, site.arguments.at(0)),
                                                 MemoryKind::device);
        result = made == nullptr ? 0 : made->begin;
        break;
      }
      case Builtin::free:
        if (const uint64_t address = read_local<uint64_t>(w, l, site.arguments.at(0));
            address != 0) {
          memory_map().release(reinterpret_cast<const void*>(address));
        }
        break;
      case Builtin::none:
        break;
    }
    if (site.results.empty()) return;
    std::byte* to = w.local + l * w.local_stride + site.results[0].offset;
    std::memcpy(to, &result, std::min<uint64_t>(site.results[0].bytes, sizeof(result)));
    if (w.local_undefined != nullptr) {
      std::memset(w.local_undefined + l * w.local_stride + site.results[0].offset, 0,
                  site.results[0].bytes);
    }
  });
  if (site.builtin == Builtin::assertfail) {
    w.block->grid->stop = true;
    exit_lanes(w, lanes);
  }
}

}  // namespace longclock::emulator
