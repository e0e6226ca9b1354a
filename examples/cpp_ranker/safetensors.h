// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <unordered_map>

// The tensors of a safetensors file whose names hold neither quotes nor backslashes, as those of a
// model's version. Throws std::runtime_error where the file is something else.
std::unordered_map<std::string, at::Tensor> read_safetensors(const std::string& path);
