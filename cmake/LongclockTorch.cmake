# SPDX-License-Identifier: Apache-2.0
# Asks the running Python for PyTorch's headers and libtorch_cpu, without importing it. find_package(Torch)
# is not used: it wants the CUDA and MKL that PyTorch was built with, and the stable ABI needs neither.

function(longclock_find_torch)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util, pathlib
root = pathlib.Path(importlib.util.find_spec('torch').origin).parent
version = {}
exec((root / 'version.py').read_text(), version)
print(root, version['__version__'], sep=';')"
    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "longclock: ${Python_EXECUTABLE} has no PyTorch; install torch>=2.10 there and build "
      "with --no-build-isolation, or set LONGCLOCK_PYTHON=OFF for the C++ core alone")
  endif()
  list(GET found 0 root)
  list(GET found 1 version)
  if(version VERSION_LESS 2.10)
    message(FATAL_ERROR "longclock: PyTorch must be 2.10 or newer, got ${version}; install torch>=2.10")
  endif()
  find_library(torch_cpu torch_cpu PATHS ${root}/lib NO_DEFAULT_PATH NO_CACHE REQUIRED)
  message(STATUS "longclock: PyTorch ${version}")
  set(LONGCLOCK_TORCH_INCLUDE ${root}/include ${root}/include/torch/csrc/api/include PARENT_SCOPE)
  set(LONGCLOCK_TORCH_LIBRARY ${torch_cpu} PARENT_SCOPE)
  set(LONGCLOCK_TORCH_VERSION ${version} PARENT_SCOPE)
endfunction()
