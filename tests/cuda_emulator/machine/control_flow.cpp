// SPDX-License-Identifier: Apache-2.0
#include "control_flow.h"

#include <algorithm>
#include <utility>

namespace longclock::emulator {
namespace {

constexpr uint32_t kNone = 0xffffffffu;

std::vector<BasicBlock> split_blocks(const ptx::Function& function,
                                     std::vector<uint32_t>& block_of) {
  const auto& code = function.instructions;
  const uint32_t size = static_cast<uint32_t>(code.size());
  std::vector<bool> leads(size + 1, false);
  leads[0] = true;
  for (const ptx::Label& label : function.labels) leads[label.target] = true;
  for (uint32_t i = 0; i < size; ++i) {
    if (is_branch(code[i]) || ends_block(code[i])) leads[i + 1] = true;
  }
  std::vector<BasicBlock> blocks;
  block_of.assign(size + 1, kNone);
  for (uint32_t i = 0; i < size; ++i) {
    if (leads[i]) blocks.push_back({i, i, {}, false});
    block_of[i] = static_cast<uint32_t>(blocks.size() - 1);
    blocks.back().end = i + 1;
  }
  return blocks;
}

void link_blocks(const ptx::Function& function, const std::vector<uint32_t>& block_of,
                 std::vector<BasicBlock>& blocks) {
  const auto target_block = [&](uint32_t label) { return block_of[function.labels[label].target]; };
  for (uint32_t b = 0; b < blocks.size(); ++b) {
    BasicBlock& block = blocks[b];
    const ptx::Instruction& last = function.instructions[block.end - 1];
    block.falls_through = !ends_block(last) && b + 1 < blocks.size();
    if (block.falls_through) block.successors.push_back(b + 1);
    for (const ptx::Operand& operand : last.operands) {
      if (!is_branch(last)) break;
      if (operand.kind == ptx::Operand::Kind::label) {
        block.successors.push_back(target_block(operand.index));
      } else if (operand.kind == ptx::Operand::Kind::table) {
        for (uint32_t label : function.branch_tables[operand.index]) {
          block.successors.push_back(target_block(label));
        }
      }
    }
    std::erase(block.successors, kNone);  // a label at the very end: nothing to run there
  }
}

// Reverse postorder from `entry` over the nodes that `inside` allows, without recursion.
template <class Successors>
std::vector<uint32_t> reverse_postorder(uint32_t entry, size_t nodes, Successors successors) {
  std::vector<uint32_t> order;
  std::vector<bool> seen(nodes, false);
  struct Visit {
    uint32_t node;
    std::vector<uint32_t> next;
  };
  std::vector<Visit> stack;
  const auto enter = [&](uint32_t node) {
    seen[node] = true;
    stack.push_back({node, successors(node)});
  };
  enter(entry);
  while (!stack.empty()) {
    Visit& top = stack.back();
    if (top.next.empty()) {
      order.push_back(top.node);
      stack.pop_back();
      continue;
    }
    const uint32_t node = top.next.back();
    top.next.pop_back();
    if (!seen[node]) enter(node);
  }
  std::reverse(order.begin(), order.end());
  return order;
}

// Immediate dominators by Cooper, Harvey and Kennedy's iteration.
std::vector<uint32_t> dominators(const std::vector<BasicBlock>& blocks,
                                 const std::vector<uint32_t>& order,
                                 const std::vector<std::vector<uint32_t>>& predecessors) {
  std::vector<uint32_t> rank(blocks.size(), kNone), parent(blocks.size(), kNone);
  for (uint32_t i = 0; i < order.size(); ++i) rank[order[i]] = i;
  parent[order[0]] = order[0];
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 1; i < order.size(); ++i) {
      uint32_t best = kNone;
      for (uint32_t p : predecessors[order[i]]) {
        if (parent[p] == kNone) continue;
        if (best == kNone) {
          best = p;
          continue;
        }
        uint32_t a = p, b = best;
        while (a != b) {
          while (rank[a] > rank[b]) a = parent[a];
          while (rank[b] > rank[a]) b = parent[b];
        }
        best = a;
      }
      if (parent[order[i]] != best) {
        parent[order[i]] = best;
        changed = true;
      }
    }
  }
  return parent;
}

struct Loop {
  uint32_t header = 0;
  std::vector<uint32_t> blocks;
  uint32_t outer = kNone;
};

// Natural loops, the inner ones after those that hold them.
std::vector<Loop> find_loops(const std::vector<BasicBlock>& blocks,
                             const std::vector<uint32_t>& order,
                             const std::vector<std::vector<uint32_t>>& predecessors) {
  const std::vector<uint32_t> parent = dominators(blocks, order, predecessors);
  const auto dominates = [&](uint32_t a, uint32_t b) {
    while (b != a && parent[b] != b) b = parent[b];
    return a == b;
  };
  std::vector<Loop> loops;
  for (uint32_t header : order) {
    std::vector<uint32_t> pending;
    for (uint32_t p : predecessors[header]) {
      if (parent[p] != kNone && dominates(header, p)) pending.push_back(p);
    }
    if (pending.empty()) continue;
    std::vector<bool> inside(blocks.size(), false);
    inside[header] = true;
    Loop loop{header, {header}, kNone};
    while (!pending.empty()) {
      const uint32_t block = pending.back();
      pending.pop_back();
      if (inside[block] || parent[block] == kNone) continue;
      inside[block] = true;
      loop.blocks.push_back(block);
      pending.insert(pending.end(), predecessors[block].begin(), predecessors[block].end());
    }
    loops.push_back(std::move(loop));
  }
  // Headers come in reverse postorder, so that a loop's holders are before it; the last one that
  // holds the header is the nearest.
  for (size_t i = 0; i < loops.size(); ++i) {
    for (size_t j = i; j-- > 0;) {
      if (std::find(loops[j].blocks.begin(), loops[j].blocks.end(), loops[i].header) !=
          loops[j].blocks.end()) {
        loops[i].outer = static_cast<uint32_t>(j);
        break;
      }
    }
  }
  return loops;
}

// Lays out one loop, or the whole function, with each loop inside it as one node.
class Layout {
 public:
  Layout(const std::vector<BasicBlock>& blocks, const std::vector<Loop>& loops)
      : blocks_(blocks), loops_(loops), loop_of_(blocks.size(), kNone) {
    for (uint32_t i = 0; i < loops.size(); ++i) {
      for (uint32_t block : loops[i].blocks) loop_of_[block] = i;  // inner ones overwrite
    }
  }

  void place(uint32_t region, uint32_t entry, std::vector<uint32_t>& out) const {
    const auto successors = [&](uint32_t node) {
      std::vector<uint32_t> next;
      const uint32_t loop = child_loop(region, node);
      const auto add = [&](uint32_t block) {
        for (uint32_t s : blocks_[block].successors) {
          const uint32_t item = item_of(region, s);
          if (item != kNone && item != node) next.push_back(item);
        }
      };
      if (loop == kNone) {
        add(node);
      } else {
        for (uint32_t block : loops_[loop].blocks) add(block);
      }
      // Visited from the back: the first successor, the fall-through, comes first in the layout
      // where nothing else decides.
      return next;
    };
    for (uint32_t node : reverse_postorder(entry, blocks_.size(), successors)) {
      const uint32_t loop = child_loop(region, node);
      if (loop == kNone) {
        out.push_back(node);
      } else {
        place(loop, node, out);
      }
    }
  }

 private:
  // The loop directly inside `region` that holds the block; kNone: the block is the region's own.
  uint32_t child_loop(uint32_t region, uint32_t block) const {
    uint32_t child = kNone;
    for (uint32_t loop = loop_of_[block]; loop != region; loop = loops_[loop].outer) {
      if (loop == kNone) return kNone;
      child = loop;
    }
    return child;
  }
  // The node of the region that stands for a block: itself, or the header of its loop; kNone:
  // outside.
  uint32_t item_of(uint32_t region, uint32_t block) const {
    uint32_t item = block;
    for (uint32_t loop = loop_of_[block]; loop != region; loop = loops_[loop].outer) {
      if (loop == kNone) return kNone;
      item = loops_[loop].header;
    }
    return item;
  }

  const std::vector<BasicBlock>& blocks_;
  const std::vector<Loop>& loops_;
  std::vector<uint32_t> loop_of_;
};

}  // namespace

bool is_branch(const ptx::Instruction& instruction) {
  return instruction.opcode == "bra" || instruction.opcode == "brx";
}

bool ends_block(const ptx::Instruction& instruction) {
  if (instruction.guard >= 0) return false;
  const std::string_view opcode = instruction.opcode;
  return is_branch(instruction) || opcode == "ret" || opcode == "exit" || opcode == "trap";
}

ControlFlow analyse_control_flow(const ptx::Function& function) {
  ControlFlow flow;
  flow.blocks = split_blocks(function, flow.block_of);
  if (flow.blocks.empty()) return flow;
  link_blocks(function, flow.block_of, flow.blocks);
  const std::vector<uint32_t> order = reverse_postorder(
      0, flow.blocks.size(), [&](uint32_t b) { return flow.blocks[b].successors; });
  std::vector<std::vector<uint32_t>> predecessors(flow.blocks.size());
  for (uint32_t b : order) {
    for (uint32_t s : flow.blocks[b].successors) predecessors[s].push_back(b);
  }
  const std::vector<Loop> loops = find_loops(flow.blocks, order, predecessors);
  const Layout layout(flow.blocks, loops);
  layout.place(kNone, 0, flow.order);
  return flow;
}

}  // namespace longclock::emulator
