# SPDX-License-Identifier: Apache-2.0
# LONGCLOCK_SANITIZE instruments everything that is built, and makes every finding fatal:
#   address  AddressSanitizer with UndefinedBehaviorSanitizer and the standard library's assertions
#   thread   ThreadSanitizer
#   memory   MemorySanitizer, which only Clang has, with the origin of each value that was never written
# Sets LONGCLOCK_KERNEL_OPTIMIZATION and LONGCLOCK_OP_OPTIMIZATION.
set(LONGCLOCK_SANITIZE "" CACHE STRING "Sanitizer of the whole build: address, thread, memory, or none")

set(LONGCLOCK_KERNEL_OPTIMIZATION -O3)  # said because CMake's Release and RelWithDebInfo differ
set(LONGCLOCK_OP_OPTIMIZATION -O2)
if(NOT LONGCLOCK_SANITIZE)
  return()
endif()

set(sanitizer_of_address address,undefined -fno-sanitize-recover=undefined -D_GLIBCXX_ASSERTIONS)
set(sanitizer_of_thread thread)
set(sanitizer_of_memory memory -fsanitize-memory-track-origins -fno-sanitize-recover=memory)
if(NOT DEFINED sanitizer_of_${LONGCLOCK_SANITIZE})
  message(FATAL_ERROR
    "longclock: LONGCLOCK_SANITIZE must be address, thread, memory or empty, got ${LONGCLOCK_SANITIZE}")
endif()
if(LONGCLOCK_SANITIZE STREQUAL memory AND NOT CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  message(FATAL_ERROR "longclock: LONGCLOCK_SANITIZE=memory needs Clang: set CMAKE_CXX_COMPILER=clang++")
endif()

set(LONGCLOCK_KERNEL_OPTIMIZATION -O1)
set(LONGCLOCK_OP_OPTIMIZATION -O1)
set(sanitizer -fsanitize=${sanitizer_of_${LONGCLOCK_SANITIZE}})
string(TOUPPER LONGCLOCK_SANITIZE_${LONGCLOCK_SANITIZE} sanitizer_definition)
add_compile_options(${sanitizer} -g1 -fno-omit-frame-pointer)
add_compile_definitions(LONGCLOCK_SANITIZE ${sanitizer_definition})
add_link_options(${sanitizer})

# libstdc++ is not instrumented: what it writes into objects of GoogleTest and of the tests would count as
# never written. Their stack counts as written, and so does the heap (MSAN_OPTIONS=poison_in_malloc=0:poison_in_free=0), apart
# from the kernels' scratch memory, which says of itself that it is fresh.
set(LONGCLOCK_TEST_OPTIONS "")
if(LONGCLOCK_SANITIZE STREQUAL memory)
  set(LONGCLOCK_TEST_OPTIONS -mllvm -msan-poison-stack=0)
endif()
