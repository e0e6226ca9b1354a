// SPDX-License-Identifier: Apache-2.0
#pragma once

// All that liblongclock.so exports: the ops register themselves when it is loaded. Plain C, so that
// a program can also find these by dlsym.
#define LONGCLOCK_EXPORT extern "C" __attribute__((visibility("default")))

// Values are text; "" where there is none. Keys: version, compiler, cuda, cuda_archs (with commas),
// torch_target, torch_built_with. nullptr for an unknown key.
LONGCLOCK_EXPORT const char* longclock_build_info(const char* key);

// Levels by name, best last, separated by commas: what was compiled, and what this machine runs.
LONGCLOCK_EXPORT const char* longclock_simd_levels_built();
LONGCLOCK_EXPORT const char* longclock_max_simd_level();
LONGCLOCK_EXPORT const char* longclock_simd_level();
// Returns 0, or -1 where the name is unknown or the machine lacks the level.
LONGCLOCK_EXPORT int longclock_set_simd_level(const char* name);
