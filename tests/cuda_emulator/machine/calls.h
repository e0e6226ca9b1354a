// SPDX-License-Identifier: Apache-2.0
// Calls of device functions. Every function has registers and a frame of local memory of its own,
// so that lanes may be in different functions at once; a function that recurs saves both.
#pragma once

#include "program.h"
#include "warp.h"

namespace longclock::emulator {

void call_function(Warp& warp, const Instruction& in, uint32_t lanes);
// vprintf, __assertfail, malloc, free.
void call_builtin(Warp& warp, const Instruction& in, uint32_t lanes, const CallSite& site);

}  // namespace longclock::emulator
