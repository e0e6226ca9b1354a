// SPDX-License-Identifier: Apache-2.0
// longclock._native: what is not a tensor op. Tensor ops go through PyTorch's dispatcher.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "library_info.h"

namespace py = pybind11;

namespace {

std::vector<std::string> split(const char* text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

// The levels that this build has and this machine runs, best last.
std::vector<std::string> simd_levels() {
  std::vector<std::string> levels;
  for (const std::string& level : split(longclock_simd_levels_built())) {
    levels.push_back(level);
    if (level == longclock_max_simd_level()) break;
  }
  return levels;
}

void set_simd_level(const std::string& level) {
  if (longclock_set_simd_level(level.c_str()) == 0) return;
  std::string known;
  for (const std::string& name : simd_levels()) known += (known.empty() ? "" : ", ") + name;
  throw py::value_error("set_simd_level: level must be one that this machine has (" + known +
                        "), got '" + level + "'; longclock._native.simd_levels() lists them");
}

py::dict build_info() {
  const std::string cuda = longclock_build_info("cuda");
  py::dict info;
  for (const char* key : {"version", "compiler", "torch_target", "torch_built_with"}) {
    info[key] = longclock_build_info(key);
  }
  info["cuda"] = cuda.empty() ? py::object(py::none()) : py::str(cuda);
  info["cuda_archs"] = split(longclock_build_info("cuda_archs"));
  info["simd_levels"] = split(longclock_simd_levels_built());
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Build information and the SIMD level of longclock's CPU kernels.";
  m.def(
      "simd_level", [] { return std::string(longclock_simd_level()); },
      "The SIMD level in use: 'scalar', 'avx2', 'avx512' or 'avx512_bf16'.");
  m.def("set_simd_level", &set_simd_level, py::arg("level"),
        "Chooses the SIMD level of this process; ValueError where the machine lacks it.");
  m.def("simd_levels", &simd_levels, "The levels that this machine can run, best last.");
  m.def("build_info", &build_info, "How the library was built.");
}
