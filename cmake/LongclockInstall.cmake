# SPDX-License-Identifier: Apache-2.0
# The torch-free core as a CMake package (component `cpp`): headers under <longclock/...>, longclock::core and,
# where CUDA kernels were built, longclock::cuda.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/longclock)
install(DIRECTORY kernels/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/longclock COMPONENT cpp
  FILES_MATCHING PATTERN "*.h" PATTERN "*-inl.h" EXCLUDE PATTERN "*_test.h" EXCLUDE)
set(package_targets longclock_core)
if(LONGCLOCK_HAS_CUDA)
  list(APPEND package_targets longclock_cuda)
endif()
install(TARGETS ${package_targets} EXPORT longclockTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
install(EXPORT longclockTargets NAMESPACE longclock:: DESTINATION ${package_dir} COMPONENT cpp)
configure_package_config_file(cmake/longclockConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/longclockConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/longclockConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/longclockConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/longclockConfigVersion.cmake DESTINATION ${package_dir} COMPONENT cpp)
