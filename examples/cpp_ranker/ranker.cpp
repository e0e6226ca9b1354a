// SPDX-License-Identifier: Apache-2.0
// Ranks candidates without Python, by a package of `python -m longclock.export --package`.
//
//   ranker LIBLONGCLOCK PACKAGE < requests
//
// A line is a request: user, time, candidates, and the user's history, oldest first:
//   7 1335000000 0,1,2 3:1334000000,5:1334100000       ("-" for no history)
// It is answered by a line of item:score, best first. A line `weights FILE`, a version's
// tensors.safetensors, replaces the weights: filled in beside those that are used, then switched.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "safetensors.h"

namespace {

at::Tensor row(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

class Ranker {
 public:
  explicit Ranker(const std::string& package) : loader_(package) {
    auto known = loader_.get_metadata();
    users_ = std::stoll(known.at("users"));
    items_ = std::stoll(known.at("items"));
  }

  // Who is not known has the row behind the last; behaviours with items that are not known are left
  // out, and such candidates are not answered.
  std::string rank(const std::string& line) {
    std::istringstream words(line);
    int64_t user = 0, now = 0;
    std::string candidates, history, word;
    if (!(words >> user >> now >> candidates >> history)) {
      throw std::invalid_argument("a request is: user time candidates history, got: " + line);
    }
    std::vector<int64_t> rows, behaviours, times;
    for (std::istringstream list(candidates); std::getline(list, word, ',');) {
      const int64_t item = std::stoll(word);
      if (item >= 0 && item < items_) rows.push_back(item);
    }
    for (std::istringstream list(history == "-" ? "" : history); std::getline(list, word, ',');) {
      const int64_t item = std::stoll(word), time = std::stoll(word.substr(word.find(':') + 1));
      if (item < 0 || item >= items_ || time >= now) continue;
      behaviours.push_back(item);
      times.push_back(time);
    }
    const int64_t count = static_cast<int64_t>(rows.size());
    const at::Tensor scores = loader_.run(
        {row({user >= 0 && user < users_ ? user : users_}), row(rows), row(behaviours), row(times),
         row({static_cast<int64_t>(behaviours.size())}), row({0, count}), row({now})})[0];
    const at::Tensor order = scores.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
    std::string answer;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = order[i].item<int64_t>();
      char text[64];
      std::snprintf(text, sizeof(text), "%s%lld:%.9g", i ? " " : "",
                    static_cast<long long>(rows[at]), scores[at].item<float>());
      answer += text;
    }
    return answer;
  }

  void replace_weights(const std::string& path) {
    auto tensors = read_safetensors(path);
    std::unordered_map<std::string, at::Tensor> wanted;
    for (const std::string& name : loader_.get_constant_fqns()) {
      // Without labels the table of behaviours is that of items.
      const bool is_items = name == "behaviours" && !tensors.count(name);
      wanted[name] = tensors.at(is_items ? "items" : name);
    }
    loader_.load_constants(wanted, /*use_inactive=*/true, /*check_full_update=*/true);
    loader_.get_runner()->swap_constant_buffer();
  }

 private:
  torch::inductor::AOTIModelPackageLoader loader_;
  int64_t users_ = 0, items_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: ranker LIBLONGCLOCK PACKAGE < requests\n";
    return 2;
  }
  // The ops register themselves when their library is opened: without it a package finds no schema.
  if (!dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) {
    std::cerr << "ranker: " << dlerror() << "\n";
    return 1;
  }
  at::set_num_threads(1);
  const c10::InferenceMode guard;
  try {
    Ranker ranker(argv[2]);
    for (std::string line; std::getline(std::cin, line);) {
      if (line.rfind("weights ", 0) == 0) {
        ranker.replace_weights(line.substr(8));
      } else {
        std::cout << ranker.rank(line) << std::endl;
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "ranker: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
