// The command line of the programs that compare CUDA kernels, on an emulated or a real GPU, with
// loops: `check_... [PROBLEMS] [FIRST_SEED] [--name=value]...`. Each problem is drawn from a
// separate seed, so that `check_... 1 SEED` with the same settings repeats one of them.
#ifndef SASA_TF_TESTS_NATIVE_RANDOM_PROBLEMS_H_
#define SASA_TF_TESTS_NATIVE_RANDOM_PROBLEMS_H_

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <random>
#include <string>

#include "scheduler.h"

// A field of the problems that the command line can set.
template <typename Problem>
struct Setting {
  const char* name;
  void (*set)(Problem&, int);
};
using Settings = std::map<std::string, int>;

template <typename Problem, size_t kCount>
void Apply(const Setting<Problem> (&known)[kCount], const Settings& given, Problem& problem) {
  for (const Setting<Problem>& setting : known) {
    const auto found = given.find(setting.name);
    if (found != given.end()) setting.set(problem, found->second);
  }
}

// Returns the program's exit status. Stops at the first problem that fails.
template <typename Problem, size_t kCount>
int CheckRandomProblems(int argc, char** argv, const char* what,
                        const Setting<Problem> (&known)[kCount],
                        Problem (*draw)(std::mt19937&, const Settings&),
                        bool (*check)(const Problem&, std::mt19937&),
                        void (*print)(const Problem&)) {
  constexpr const char* kTypes[] = {"float32", "bfloat16", "float16"};
  int positional[2] = {100, 1}, found = 0;  // problems, first seed
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument.rfind("--", 0) == 0 && equals != std::string::npos) {
      const std::string name = argument.substr(2, equals - 2), text = argument.substr(equals + 1);
      const auto type = std::find(std::begin(kTypes), std::end(kTypes), text);
      const bool is_known = std::any_of(std::begin(known), std::end(known),
                                        [&](const auto& setting) { return setting.name == name; });
      if (!is_known) return std::fprintf(stderr, "unknown setting: --%s\n", name.c_str()), 2;
      settings[name] = type == std::end(kTypes) ? std::atoi(text.c_str()) : type - kTypes;
    } else if (found < 2) {
      positional[found++] = std::atoi(argv[i]);
    }
  }
  static Problem current;
  static auto print_current = print;
  emulation::OnFailure([] {
    print_current(current);
    std::fflush(stdout);
  });
  const char* order = std::getenv("SASA_EMULATION_SEED");
  const int first_seed = positional[1], problems = positional[0];
  for (int seed = first_seed; seed < first_seed + problems; ++seed) {
    std::mt19937 random(seed);
    current = draw(random, settings);
    emulation::Seed(seed + (order == nullptr ? 0 : 1000003 * std::atoll(order)));
    if (!check(current, random)) {
      std::printf("seed %d: ", seed);
      print(current);
      return 1;
    }
  }
  std::printf("%d problems %s agree on the %s GPU\n", problems, what, emulation::kGpuName);
  return 0;
}

#endif  // SASA_TF_TESTS_NATIVE_RANDOM_PROBLEMS_H_
