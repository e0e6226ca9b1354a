// SPDX-License-Identifier: Apache-2.0
#include "fatbin.h"

#include <elf.h>

#include <cstring>
#include <stdexcept>

namespace longclock::emulator::ptx {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243B1;
constexpr uint32_t kFatbinMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1, kCubin = 2;
constexpr uint8_t kRegisterCount = 0x2f;  // EIATTR_REGCOUNT of .nv.info: symbol, count

struct Wrapper {
  uint32_t magic, version;
  const void* data;
  void* reserved;
};

struct Header {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;  // of the entries
};

struct Entry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t payload_bytes;
  uint32_t compressed_bytes, options;
  uint16_t minor, major;
  uint32_t arch;
};

// Registers a thread of each kernel, from the attributes that ptxas wrote beside the code.
std::map<std::string, KernelResources> read_cubin(const unsigned char* elf, size_t size) {
  std::map<std::string, KernelResources> out;
  Elf64_Ehdr header;
  if (size < sizeof(header)) return out;
  std::memcpy(&header, elf, sizeof(header));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr) > size) {
    return out;
  }
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  std::memcpy(sections.data(), elf + header.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  const auto name_of = [&](const Elf64_Shdr& section) {
    return reinterpret_cast<const char*>(elf + sections[header.e_shstrndx].sh_offset +
                                         section.sh_name);
  };
  const Elf64_Shdr* symbols = nullptr;
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type == SHT_SYMTAB) symbols = &section;
  }
  if (symbols == nullptr) return out;
  const auto symbol_name = [&](uint32_t index) {
    Elf64_Sym symbol;
    std::memcpy(&symbol, elf + symbols->sh_offset + index * sizeof(symbol), sizeof(symbol));
    return std::string(
        reinterpret_cast<const char*>(elf + sections[symbols->sh_link].sh_offset + symbol.st_name));
  };
  for (const Elf64_Shdr& section : sections) {
    if (std::strcmp(name_of(section), ".nv.info") != 0) continue;
    const unsigned char* at = elf + section.sh_offset;
    const unsigned char* const end = at + section.sh_size;
    while (at + 4 <= end) {
      const uint8_t format = at[0], attribute = at[1];
      uint16_t bytes;
      std::memcpy(&bytes, at + 2, 2);
      at += 4;
      if (format != 4) continue;  // the value stands in the two bytes themselves
      if (attribute == kRegisterCount && bytes == 8) {
        uint32_t pair[2];
        std::memcpy(pair, at, 8);
        out[symbol_name(pair[0])].registers = pair[1];
      }
      at += bytes;
    }
  }
  return out;
}

}  // namespace

std::vector<FatbinEntry> read_fatbin(const void* pointer) {
  Wrapper wrapper;
  std::memcpy(&wrapper, pointer, sizeof(wrapper));
  if (wrapper.magic != kWrapperMagic)
    throw std::runtime_error("not a wrapper of a fatbin: its magic number is wrong");
  const auto* data = static_cast<const unsigned char*>(wrapper.data);
  Header header;
  std::memcpy(&header, data, sizeof(header));
  if (header.magic != kFatbinMagic)
    throw std::runtime_error("not a fatbin: its magic number is wrong");
  std::vector<FatbinEntry> out;
  const unsigned char* at = data + header.header_bytes;
  const unsigned char* const end = at + header.bytes;
  while (at + sizeof(Entry) <= end) {
    Entry entry;
    std::memcpy(&entry, at, sizeof(entry));
    const unsigned char* payload = at + entry.header_bytes;
    at = payload + entry.payload_bytes;
    if (entry.kind != kPtx && entry.kind != kCubin) continue;
    FatbinEntry& made = out.emplace_back();
    made.is_ptx = entry.kind == kPtx;
    made.arch = static_cast<int>(entry.arch);
    if (made.is_ptx) {
      if (entry.compressed_bytes != 0) {
        throw std::runtime_error("the PTX for sm_" + std::to_string(entry.arch) +
                                 " is compressed: compile with nvcc -no-compress");
      }
      const auto* text = reinterpret_cast<const char*>(payload);
      made.ptx.assign(text, strnlen(text, entry.payload_bytes));
    } else if (entry.compressed_bytes == 0) {
      made.kernels = read_cubin(payload, entry.payload_bytes);
    }
  }
  return out;
}

}  // namespace longclock::emulator::ptx
