# SPDX-License-Identifier: Apache-2.0
# A kernel's body, kernels/<folder>/<stem>_simd-inl.h, is compiled once per SIMD level, into a namespace of its own:
# from a file that only names the two, which is written here. That of the scalar level, whose flags are the baseline's,
# also chooses among them: kernels/common/cpu_entry-inl.h knows the same levels.
set(levels scalar)
set(scalar_define "#define LONGCLOCK_CPU_ENTRIES\n")
if(LONGCLOCK_X86)
  list(APPEND levels avx2 avx512)
  set(avx2_flags -mavx2 -mfma -mf16c -mno-avx512f)
  set(avx512_flags -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  set(avx512_bf16_flags ${avx512_flags} -mavx512bf16 -mavx512vnni)
endif()

# Appends the level's files of every body to the list `sources`. A body with a LONGCLOCK_CPU_BF16_ENTRY multiplies
# pairs of bfloat16, and fours of int8, and has a level for them.
function(longclock_add_levels sources)
  file(GLOB bodies CONFIGURE_DEPENDS kernels/*/*_simd-inl.h)
  foreach(body IN LISTS bodies)
    cmake_path(GET body PARENT_PATH folder)
    cmake_path(GET folder FILENAME room)
    string(REGEX REPLACE "^.*/(.*)_simd-inl\\.h$" "\\1" stem ${body})
    set(levels_of_body ${levels})
    file(STRINGS ${body} bf16_entries REGEX "^LONGCLOCK_CPU_BF16_ENTRY")
    if(bf16_entries AND LONGCLOCK_X86)
      list(APPEND levels_of_body avx512_bf16)
    endif()
    foreach(level IN LISTS levels_of_body)
      set(file ${CMAKE_CURRENT_BINARY_DIR}/levels/${stem}_${level}.cpp)
      file(CONFIGURE OUTPUT ${file} CONTENT
        "${${level}_define}#define LONGCLOCK_SIMD_NAMESPACE ${level}\n#include \"longclock/${room}/${stem}_simd-inl.h\"\n")
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${${level}_flags}")
      list(APPEND ${sources} ${file})
    endforeach()
  endforeach()
  set(${sources} ${${sources}} PARENT_SCOPE)
endfunction()
