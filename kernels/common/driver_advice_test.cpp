// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/driver_advice.h"

#include <gtest/gtest.h>

namespace longclock {
namespace {

TEST(DriverAdvice, AnOldDriver) {
  EXPECT_EQ(
      driver_advice(35, 12080, 13000),
      "longclock was built with CUDA 13.0, which needs driver 580 or newer; the NVIDIA driver "
      "runs CUDA 12.8; update the driver, or build longclock with a toolkit that is as old as "
      "the driver");
  EXPECT_NE(
      driver_advice(35, 0, 12090).find("needs driver 525 or newer; no NVIDIA driver was found"),
      std::string::npos);
  EXPECT_NE(driver_advice(35, 13000, 14020).find("CUDA 14.2, which needs a newer driver"),
            std::string::npos);
}

TEST(DriverAdvice, NewerPtx) {
  EXPECT_NE(driver_advice(222, 13000, 13050)
                .find("built with CUDA 13.5 as PTX, which takes a driver "
                      "of that release or newer; the NVIDIA driver runs "
                      "CUDA 13.0"),
            std::string::npos);
}

TEST(DriverAdvice, NoCodeForThisGpu) {
  EXPECT_NE(driver_advice(209, 13000, 13000).find("LONGCLOCK_CUDA_ARCHS=all"), std::string::npos);
}

TEST(DriverAdvice, NothingWhereItIsNotTheDriver) {
  for (const int error : {0, 1, 2, 700, 719}) EXPECT_EQ(driver_advice(error, 13000, 13000), "");
}

}  // namespace
}  // namespace longclock
