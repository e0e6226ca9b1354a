// SPDX-License-Identifier: Apache-2.0
#include "longclock/common/driver_advice.h"

namespace longclock {
namespace {

// cudaErrorInsufficientDriver, cudaErrorNoKernelImageForDevice, cudaErrorUnsupportedPtxVersion.
constexpr int kOldDriver = 35, kNoImage = 209, kNewPtx = 222;

std::string release(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The first Linux driver that runs programs of a toolkit's major release, from NVIDIA's table of
// minor-version compatibility; 0: not known here.
int least_driver(int toolkit) {
  switch (toolkit / 1000) {
    case 11:
      return 450;
    case 12:
      return 525;
    case 13:
      return 580;
    default:
      return 0;
  }
}

}  // namespace

std::string driver_advice(int error, int driver, int toolkit) {
  const std::string built = "longclock was built with CUDA " + release(toolkit);
  if (error == kNoImage) {
    return built +
           " for other GPUs than this one; build it with LONGCLOCK_CUDA_ARCHS=all, or with this "
           "GPU's compute capability";
  }
  if (error != kOldDriver && error != kNewPtx) return "";
  const std::string found =
      driver == 0 ? "no NVIDIA driver was found" : "the NVIDIA driver runs CUDA " + release(driver);
  if (error == kNewPtx) {
    return built + " as PTX, which takes a driver of that release or newer; " + found +
           "; update the driver, or build longclock with LONGCLOCK_CUDA_ARCHS=all, whose machine "
           "code needs no newer one";
  }
  const int least = least_driver(toolkit);
  const std::string needed =
      least == 0 ? " a newer driver" : " driver " + std::to_string(least) + " or newer";
  return built + ", which needs" + needed + "; " + found +
         "; update the driver, or build longclock with a toolkit that is as old as the driver";
}

}  // namespace longclock
