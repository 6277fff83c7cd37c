// SPDX-License-Identifier: Apache-2.0
//
// Runs a fuzz target over the files named on the command line: how a cc_fuzz
// target is a test when libFuzzer is not linked.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "corpus file %s: cannot be read; is it in the target's corpus?\n",
                   argv[i]);
      return 1;
    }
    const std::string input((std::istreambuf_iterator<char>(in)), {});
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::printf("replayed %d inputs\n", argc - 1);
  if (argc > 1) return 0;
  std::fprintf(stderr, "corpus: no inputs to replay; give the target at least one seed file\n");
  return 1;
}
