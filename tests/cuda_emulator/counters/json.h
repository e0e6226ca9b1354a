// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longclock::emulator {

// Builds one JSON value. Commas are its business.
class JsonWriter {
 public:
  JsonWriter& open(char bracket);  // { or [
  JsonWriter& close(char bracket);
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(uint64_t number);
  JsonWriter& value(const uint32_t (&numbers)[3]);
  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  JsonWriter& raw(std::string_view json);  // a value that is JSON already
  const std::string& text() const { return text_; }

 private:
  void separate();
  std::string text_;
};

}  // namespace longclock::emulator
