// SPDX-License-Identifier: Apache-2.0
#include "safetensors.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

const std::pair<const char*, at::ScalarType> kTypes[] = {
    {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"I64", at::kLong}};

// What is read of a header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
// ...}.
class Header {
 public:
  Header(const char* at, const char* end) : at_(at), end_(end) {}

  bool skip(char wanted) {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == ',' || *at_ == ':')) ++at_;
    if (at_ == end_ || *at_ != wanted) return false;
    ++at_;
    return true;
  }
  std::string text() {
    if (!skip('"')) throw std::runtime_error("safetensors: a name was expected");
    const char* begin = at_;
    while (at_ < end_ && *at_ != '"') ++at_;
    if (at_ == end_) throw std::runtime_error("safetensors: the header is cut off");
    return {begin, at_++};
  }
  std::vector<int64_t> numbers() {
    std::vector<int64_t> found;
    if (!skip('[')) throw std::runtime_error("safetensors: a list was expected");
    while (!skip(']')) {
      size_t used = 0;
      found.push_back(std::stoll(std::string(at_, end_), &used));
      at_ += used;
    }
    return found;
  }

 private:
  const char* at_;
  const char* end_;
};

at::ScalarType type_of(const std::string& name) {
  for (const auto& [word, type] : kTypes) {
    if (name == word) return type;
  }
  throw std::runtime_error("safetensors: no tensor of " + name + " is read here");
}

}  // namespace

std::unordered_map<std::string, at::Tensor> read_safetensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  uint64_t length = 0;
  if (bytes.size() >= 8) std::memcpy(&length, bytes.data(), 8);
  if (bytes.size() < 8 || length > bytes.size() - 8) {
    throw std::runtime_error(path + " is no safetensors file");
  }
  const char* data = bytes.data() + 8 + length;
  const int64_t size = static_cast<int64_t>(bytes.size() - 8 - length);
  Header header(bytes.data() + 8, data);
  std::unordered_map<std::string, at::Tensor> found;
  if (!header.skip('{')) throw std::runtime_error(path + " is no safetensors file");
  while (!header.skip('}')) {
    const std::string name = header.text();
    if (!header.skip('{')) throw std::runtime_error("safetensors: an object was expected");
    std::string type;
    std::vector<int64_t> shape, range;
    while (!header.skip('}')) {
      const std::string field = header.text();
      if (field == "dtype") {
        type = header.text();
      } else if (field == "shape") {
        shape = header.numbers();
      } else if (field == "data_offsets") {
        range = header.numbers();
      } else {
        header.text();  // of the metadata, which are texts
      }
    }
    if (name == "__metadata__") continue;
    at::Tensor tensor = at::empty(shape, type_of(type));
    const auto wanted = static_cast<int64_t>(tensor.nbytes());
    if (range.size() != 2 || range[0] < 0 || range[1] > size || range[1] - range[0] != wanted) {
      throw std::runtime_error("safetensors: " + name + " does not lie within " + path);
    }
    std::memcpy(tensor.data_ptr(), data + range[0], wanted);
    found[name] = tensor;
  }
  return found;
}
