# SPDX-License-Identifier: Apache-2.0
# The GoogleTests, built on request. MemorySanitizer must see all that writes memory: GoogleTest is then
# built with the rest, from the sources that its package installs.
if(LONGCLOCK_SANITIZE STREQUAL memory)
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  add_subdirectory(/usr/src/googletest ${CMAKE_CURRENT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  target_compile_options(gtest PRIVATE ${LONGCLOCK_TEST_OPTIONS})
else()
  find_package(GTest QUIET)
endif()
if(NOT TARGET GTest::gtest_main)
  return()
endif()
find_package(Threads REQUIRED)
enable_testing()
include(GoogleTest)

add_executable(longclock_core_test EXCLUDE_FROM_ALL ${core_test_sources})
target_compile_options(longclock_core_test PRIVATE ${LONGCLOCK_OP_OPTIMIZATION} -ffp-contract=off ${LONGCLOCK_TEST_OPTIONS} ${warnings})
target_link_libraries(longclock_core_test PRIVATE longclock_core GTest::gtest_main Threads::Threads)
gtest_discover_tests(longclock_core_test DISCOVERY_MODE PRE_TEST)

# What a search keeps from call to call, with std::threads in place of PyTorch's.
if(LONGCLOCK_PYTHON)
  add_executable(longclock_table_test EXCLUDE_FROM_ALL
    csrc/common/time_table_cache_test.cpp csrc/common/time_table_cache.cpp csrc/common/parallel.cpp csrc/common/fork.cpp)
  target_compile_options(longclock_table_test PRIVATE ${LONGCLOCK_OP_OPTIMIZATION} ${warnings})
  target_compile_definitions(longclock_table_test PRIVATE TORCH_TARGET_VERSION=${torch_target_version})
  target_include_directories(longclock_table_test PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
  target_include_directories(longclock_table_test SYSTEM PRIVATE ${LONGCLOCK_TORCH_INCLUDE})
  target_link_libraries(longclock_table_test PRIVATE longclock_core GTest::gtest_main Threads::Threads)
  gtest_discover_tests(longclock_table_test DISCOVERY_MODE PRE_TEST)
endif()
