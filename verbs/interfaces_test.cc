// SPDX-License-Identifier: Apache-2.0
// A sysfs of files: what rdma_rxe, siw and mlx5 of Linux 6.1 show.
#include "verbs/interfaces.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace verbena::verbs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class Interfaces : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(sysfs);
    for (const auto& [name, mac] : {std::pair{"eth0", "52:54:00:12:34:56"},
                                    {"eth0.7", "52:54:00:12:34:56"},
                                    {"eth1", "52:54:00:12:34:57"},
                                    {"lo", "00:00:00:00:00:00"},
                                    {"sit0", "0.0.0.0"}}) {
      Write(std::string("net/") + name + "/address", mac);
    }
    Write("infiniband/siw0/ports/1/gids/0", "5254:0012:3456:0000:0000:0000:0000:0000");
    Write("infiniband/siw0/ports/1/gid_attrs/ndevs/0", "");  // reading it fails
    Write("infiniband/rxe0/ports/1/gids/0", "fe80:0000:0000:0000:5054:00ff:fe12:3456");
    Write("infiniband/rxe0/ports/1/gid_attrs/ndevs/0", "eth0");
    Write("infiniband/rxe0/ports/1/gid_attrs/ndevs/1", "eth0");
    Write("infiniband/rxe0/ports/1/gid_attrs/ndevs/2", "eth0.7");
    Write("infiniband/rxe0/ports/1/gid_attrs/ndevs/3", "");
    Write("infiniband/mlx5_0/ports/2/gid_attrs/ndevs/0", "eth1");
  }

  void Write(const std::string& path, const std::string& line) const {
    const std::filesystem::path full = std::filesystem::path(sysfs) / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << line << "\n";
  }

  const std::string sysfs = testing::TempDir() + "/interfaces_test";
};

TEST_F(Interfaces, RoceNamesThemBesideItsGids) {
  EXPECT_THAT(InterfacesOf("rxe0", false, sysfs), UnorderedElementsAre("eth0", "eth0.7"));
  EXPECT_THAT(InterfacesOf("mlx5_0", false, sysfs), ElementsAre("eth1"));
}

TEST_F(Interfaces, IwarpHasTheirMacAddress) {
  EXPECT_THAT(InterfacesOf("siw0", true, sysfs), UnorderedElementsAre("eth0", "eth0.7"));
}

// A device is looked at whenever a context opens.
TEST_F(Interfaces, LongTablesAreNotReadToTheirEnd) {
  Write("infiniband/rxe1/ports/1/gid_attrs/ndevs/63", "eth0");
  Write("infiniband/rxe1/ports/1/gid_attrs/ndevs/64", "eth1");
  EXPECT_THAT(InterfacesOf("rxe1", false, sysfs), ElementsAre("eth0"));
}

TEST_F(Interfaces, OfNoDeviceThereAreNone) {
  EXPECT_THAT(InterfacesOf("nosuch", true, sysfs), IsEmpty());
}

}  // namespace
}  // namespace verbena::verbs
