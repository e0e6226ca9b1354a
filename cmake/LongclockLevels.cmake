# SPDX-License-Identifier: Apache-2.0
# A kernel's body, kernels/<folder>/<stem>_simd-inl.h, is compiled once per SIMD level, into a namespace of its own:
# from a file that only names the two, which is written here. kernels/common/simd_level.h declares the same levels.
set(levels scalar)
if(LONGCLOCK_X86)
  list(APPEND levels avx2 avx512)
  set(avx2_flags -mavx2 -mfma -mf16c -mno-avx512f)
  set(avx512_flags -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  set(avx512_bf16_flags ${avx512_flags} -mavx512bf16)
endif()

# Appends the level's files of every body to the list `sources`. A body with LONGCLOCK_DECLARE_BF16_LEVELS in its
# header multiplies pairs of bfloat16, and has a level for them.
function(longclock_add_levels sources)
  file(GLOB bodies CONFIGURE_DEPENDS kernels/*/*_simd-inl.h)
  foreach(body IN LISTS bodies)
    cmake_path(GET body PARENT_PATH folder)
    cmake_path(GET folder FILENAME room)
    string(REGEX REPLACE "^.*/(.*)_simd-inl\\.h$" "\\1" stem ${body})
    set(levels_of_body ${levels})
    file(STRINGS ${folder}/${stem}.h declared REGEX "^LONGCLOCK_DECLARE_BF16_LEVELS")
    if(declared AND LONGCLOCK_X86)
      list(APPEND levels_of_body avx512_bf16)
    endif()
    foreach(level IN LISTS levels_of_body)
      set(file ${CMAKE_CURRENT_BINARY_DIR}/levels/${stem}_${level}.cpp)
      file(CONFIGURE OUTPUT ${file} CONTENT
        "#define LONGCLOCK_SIMD_NAMESPACE ${level}\n#include \"longclock/${room}/${stem}_simd-inl.h\"\n")
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${${level}_flags}")
      list(APPEND ${sources} ${file})
    endforeach()
  endforeach()
  set(${sources} ${${sources}} PARENT_SCOPE)
endfunction()
