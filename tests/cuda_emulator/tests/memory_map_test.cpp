// SPDX-License-Identifier: Apache-2.0
// Which allocation an address belongs to, and what is known of its bytes.
#include "../memory/memory_map.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "../emulator.h"

namespace longclock::emulator {
namespace {

void* pointer(uint64_t address) { return reinterpret_cast<void*>(address); }

bool all_undefined_bits_are(const Allocation& a, uint64_t first, uint64_t bytes, unsigned value) {
  for (uint64_t i = first; i < first + bytes; ++i) {
    if (a.undefined[i] != static_cast<std::byte>(value)) return false;
  }
  return true;
}

class MemoryMapTest : public testing::Test {
 protected:
  void SetUp() override { options().checks = kCheckAll; }
  MemoryMap map;
};

TEST_F(MemoryMapTest, AllocationsAreAlignedAndApart) {
  uint64_t end = 0;
  for (uint64_t bytes : {1, 255, 256, 257, 1 << 20}) {
    const Allocation* a = map.allocate(bytes, MemoryKind::device);
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->begin % 256, 0u);
    EXPECT_EQ(map.find(a->begin), a);
    EXPECT_EQ(map.find(a->begin + bytes - 1), a);
    for (uint64_t outside :
         {a->begin - 1, a->begin - 256, a->begin + bytes, a->begin + bytes + 255}) {
      const Allocation* nearest = map.find(outside);
      ASSERT_NE(nearest, nullptr);
      EXPECT_FALSE(nearest->contains(outside, 1));
    }
    std::memset(pointer(a->begin), 1, bytes);
    end += bytes;
  }
  EXPECT_EQ(map.bytes_in_use(), end);
  EXPECT_EQ(map.live(MemoryKind::device).size(), 5u);
  EXPECT_EQ(map.live(MemoryKind::managed).size(), 0u);
}

TEST_F(MemoryMapTest, RefusesWhatNoHostHas) {
  EXPECT_EQ(map.allocate(uint64_t{1} << 62, MemoryKind::device), nullptr);
  EXPECT_EQ(map.find(4096), nullptr);
}

TEST_F(MemoryMapTest, ContainsWholeAccesses) {
  const Allocation* a = map.allocate(64, MemoryKind::device);
  EXPECT_TRUE(a->contains(a->begin + 60, 4));
  EXPECT_FALSE(a->contains(a->begin + 61, 4));
  EXPECT_FALSE(a->contains(a->begin - 1, 4));
}

TEST_F(MemoryMapTest, FreedMemoryIsRemembered) {
  const Allocation* a = map.allocate(64, MemoryKind::device);
  const uint64_t begin = a->begin, generation = map.generation();
  EXPECT_FALSE(map.release(pointer(begin + 8)));
  EXPECT_TRUE(map.release(pointer(begin)));
  EXPECT_FALSE(map.release(pointer(begin)));
  EXPECT_NE(map.generation(), generation);
  ASSERT_EQ(map.find(begin + 3), a);
  EXPECT_TRUE(a->freed);
  EXPECT_EQ(map.bytes_in_use(), 0u);
  EXPECT_TRUE(map.live(MemoryKind::device).empty());
}

TEST_F(MemoryMapTest, QuarantineIsBounded) {
  options().checks = 0;  // no shadow to fill
  const uint64_t first = map.allocate(uint64_t{200} << 20, MemoryKind::device)->begin;
  const uint64_t second = map.allocate(uint64_t{100} << 20, MemoryKind::device)->begin;
  EXPECT_TRUE(map.release(pointer(first)));
  EXPECT_TRUE(map.find(first)->contains(first, 1));
  EXPECT_TRUE(map.release(pointer(second)));
  EXPECT_FALSE(map.find(first)->contains(first, 1));
  EXPECT_TRUE(map.find(second)->contains(second, 1));
}

TEST_F(MemoryMapTest, DefinednessFollowsWritesAndCopies) {
  Allocation* a = map.allocate(64, MemoryKind::device);
  Allocation* b = map.allocate(64, MemoryKind::device);
  ASSERT_NE(a->undefined, nullptr);
  EXPECT_TRUE(all_undefined_bits_are(*a, 0, 64, 0xff));
  map.define(pointer(a->begin + 16), 8);
  EXPECT_TRUE(all_undefined_bits_are(*a, 16, 8, 0));
  EXPECT_TRUE(all_undefined_bits_are(*a, 24, 40, 0xff));
  map.copy_state(pointer(b->begin), pointer(a->begin + 12), 16);
  EXPECT_TRUE(all_undefined_bits_are(*b, 0, 4, 0xff));
  EXPECT_TRUE(all_undefined_bits_are(*b, 4, 8, 0));
  EXPECT_TRUE(all_undefined_bits_are(*b, 12, 52, 0xff));
  int host[4] = {};  // what the map does not know was written by the host
  map.copy_state(pointer(b->begin + 32), host, sizeof host);
  EXPECT_TRUE(all_undefined_bits_are(*b, 32, 16, 0));
}

TEST_F(MemoryMapTest, OnlyDeviceMemoryBeginsUndefined) {
  for (MemoryKind kind : {MemoryKind::managed, MemoryKind::pinned, MemoryKind::variable}) {
    EXPECT_EQ(map.allocate(64, kind)->undefined, nullptr);
  }
  options().checks = kCheckBounds;
  EXPECT_EQ(map.allocate(64, MemoryKind::device)->undefined, nullptr);
  EXPECT_TRUE(map.allocate(64, MemoryKind::constant, "table")->read_only);
}

TEST_F(MemoryMapTest, DeclaringAgainReplaces) {
  alignas(256) static std::array<std::byte, 256> memory;
  const uint64_t begin = reinterpret_cast<uint64_t>(memory.data());
  map.declare(memory.data(), 256, true, false);
  EXPECT_TRUE(map.find(begin)->read_only);
  const Allocation* a = map.declare(memory.data(), 128, false, true);
  EXPECT_EQ(map.find(begin), a);
  EXPECT_FALSE(a->read_only);
  EXPECT_FALSE(map.find(begin + 128)->contains(begin + 128, 1));
  EXPECT_TRUE(all_undefined_bits_are(*a, 0, 128, 0xff));
  EXPECT_FALSE(map.release(memory.data()));
  map.forget(memory.data());
  EXPECT_EQ(map.find(begin), nullptr);
}

TEST_F(MemoryMapTest, ViewsAndStaleRanges) {
  alignas(256) static std::array<std::byte, 512> memory;
  const uint64_t begin = reinterpret_cast<uint64_t>(memory.data());
  const Allocation* whole = map.declare(memory.data(), 256, true, false);
  EXPECT_EQ(map.declare(memory.data() + 64, 32, false, true), whole);  // a view
  EXPECT_FALSE(whole->read_only);
  EXPECT_TRUE(all_undefined_bits_are(*whole, 64, 32, 0xff));
  EXPECT_TRUE(all_undefined_bits_are(*whole, 0, 64, 0));
  map.forget(memory.data() + 64);
  EXPECT_EQ(map.find(begin), whole);
  const Allocation* later = map.declare(memory.data() + 128, 256, false, false);
  EXPECT_EQ(map.find(begin + 300), later);
  EXPECT_FALSE(map.find(begin)->contains(begin, 1));
}

TEST_F(MemoryMapTest, DeclaredCudaMemoryStaysAnAllocation) {
  Allocation* pinned = map.allocate(256, MemoryKind::pinned);
  EXPECT_EQ(map.declare(pointer(pinned->begin), 256, true, false), pinned);
  map.forget(pointer(pinned->begin));
  EXPECT_EQ(map.find(pinned->begin), pinned);
  EXPECT_TRUE(map.release(pointer(pinned->begin)));
}

TEST_F(MemoryMapTest, ShadowsBeginAsZeros) {
  Allocation* a = map.allocate(1 << 20, MemoryKind::device);
  RaceCell* cells = a->race_cells();
  ASSERT_NE(cells, nullptr);
  EXPECT_EQ(cells, a->race_cells());
  EXPECT_EQ(cells[a->word_of(a->begin + a->bytes - 1)].write, 0u);
  a->touched_words()[0] = 5;
  map.begin_launch();
  EXPECT_EQ(a->touched_words()[0], 0u);
}

}  // namespace
}  // namespace longclock::emulator
