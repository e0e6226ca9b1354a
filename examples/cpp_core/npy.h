// SPDX-License-Identifier: Apache-2.0
// Arrays as numpy.save() writes them.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

struct Npy {
  std::string path, dtype;  // "<f4"
  std::vector<int64_t> shape;
  std::vector<char> bytes;

  template <class T>
  const T* as(const std::string& expected) const {
    if (dtype != expected) {
      throw std::runtime_error(path + " must be " + expected + ", got " + dtype);
    }
    return reinterpret_cast<const T*>(bytes.data());
  }
};

inline Npy read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string head(10, '\0');
  if (!file.read(head.data(), 10) || head.compare(0, 7, "\x93NUMPY\x01") != 0) {
    throw std::runtime_error(path + " is no file of numpy.save()");
  }
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(head[i]); };
  std::string text(static_cast<size_t>(byte(8) + 256 * byte(9)), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  static const std::regex form(
      R"(\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([^)]*)\), \}\s*)");
  std::smatch found;
  if (!std::regex_match(text, found, form)) {
    throw std::runtime_error(path + " must be an array in C order, got " + text);
  }
  Npy array{path, found[1], {}, {}};
  static const std::regex number("[0-9]+");
  const std::string sizes = found[2];
  size_t count = static_cast<size_t>(std::stoul(array.dtype.substr(2)));  // bytes
  for (std::sregex_iterator at(sizes.begin(), sizes.end(), number), end; at != end; ++at) {
    array.shape.push_back(std::stoll(at->str()));
    count *= static_cast<size_t>(array.shape.back());
  }
  array.bytes.resize(count);
  if (!file.read(array.bytes.data(), static_cast<std::streamsize>(count))) {
    throw std::runtime_error(path + " ends early");
  }
  return array;
}
