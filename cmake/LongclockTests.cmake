# SPDX-License-Identifier: Apache-2.0
# The GoogleTests, built on request, and not where longclock is a part of another project.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()

# MemorySanitizer must see all that writes memory: GoogleTest is then
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
enable_testing()
include(GoogleTest)

add_executable(longclock_core_test EXCLUDE_FROM_ALL ${core_test_sources})
target_compile_options(longclock_core_test PRIVATE ${LONGCLOCK_OP_OPTIMIZATION} -ffp-contract=off ${LONGCLOCK_TEST_OPTIONS} ${warnings})
target_link_libraries(longclock_core_test PRIVATE longclock_core GTest::gtest_main)
gtest_discover_tests(longclock_core_test DISCOVERY_MODE PRE_TEST)
