// SPDX-License-Identifier: Apache-2.0
#include "transport/address.h"

#include <string>

#include "gtest/gtest.h"

namespace verbena::provider {
namespace {

// Every form that is taken.
TEST(ParseHostPort, Takes) {
  struct Row {
    const char *text, *host;
    uint16_t port;
  };
  const Row rows[] = {
      {"server:7471", "server", 7471},
      {"10.0.0.1:0", "10.0.0.1", 0},
      {":7471", "", 7471},
      {"[::1]:65535", "::1", 65535},
      {"[fe80::1%eth0]:1", "fe80::1%eth0", 1},
      {"a.b-c.example:80", "a.b-c.example", 80},
  };
  for (const Row& row : rows) {
    const auto parsed = ParseHostPort(row.text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->host, row.host) << row.text;
    EXPECT_EQ(parsed->port, row.port) << row.text;
  }
}

// Every slip. Expect: InvalidArgument that quotes the text, says what is wrong and what to write.
TEST(ParseHostPort, RefusesWithAReason) {
  struct Row {
    const char *text, *part;
  };
  const Row rows[] = {
      {"", "write host:port"},
      {"server", "\"server\": no port; write host:port, e.g. server:7471"},
      {"server:", "no port after \":\""},
      {"server:http", "port \"http\" is not a number"},
      {"server:+1", "not a number"},
      {"server: 1", "not a number"},
      {"server:65536", "port 65536 is not between 0 and 65535"},
      {"server:99999999999999999999", "not between"},
      {"::1", "brackets"},
      {"::1:7471", "[::1]:7471"},
      {"[::1]", "no port; write [address]:port, e.g. [::1]:7471"},
      {"[::1]7471", "after \"]\""},
      {"[::1:7471", "no \"]\""},
      {"[]:7471", "nothing in the brackets"},
  };
  for (const Row& row : rows) {
    const auto parsed = ParseHostPort(row.text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << row.text;
    EXPECT_NE(parsed.status().message().find(row.part), std::string::npos) << parsed.status();
  }
}

TEST(Address, Text) {
  EXPECT_EQ(Address::FromIp("10.0.0.1", 7471)->ToString(), "10.0.0.1:7471");
  EXPECT_EQ(Address::FromIp("::1", 7471)->ToString(), "[::1]:7471");
  EXPECT_EQ(Address::FromIp("::ffff:10.0.0.1", 1)->ToString(), "10.0.0.1:1");
  EXPECT_EQ(Address().ToString(), "(no address)");
  EXPECT_TRUE(Address().empty());
  for (const char* text : {"", "10.1", "10.0.0.256", "server", "::g", "10.0.0.1 "}) {
    EXPECT_FALSE(Address::FromIp(text, 0).ok()) << text;
  }
}

TEST(Address, Properties) {
  const Address a = *Address::FromIp("127.0.0.2", 5);
  EXPECT_TRUE(a.is_loopback());
  EXPECT_FALSE(a.is_any());
  EXPECT_EQ(a.port(), 5);
  Address b = a;
  EXPECT_EQ(a, b);
  b.set_port(6);
  EXPECT_FALSE(a == b);
  EXPECT_TRUE(Address::FromIp("0.0.0.0", 0)->is_any());
  EXPECT_TRUE(Address::FromIp("::", 0)->is_any());
  EXPECT_TRUE(Address::FromIp("::1", 0)->is_loopback());
  EXPECT_FALSE(*Address::FromIp("::1", 0) == *Address::FromIp("::2", 0));
  EXPECT_EQ(Address(), Address());
}

// Which addresses are for peers elsewhere: on RDMA devices and over TCP.
TEST(LeadsFar, NeitherLinkLocalNorMadeForGuests) {
  struct Row {
    const char *ip, *interface;
    bool far;
  };
  const Row rows[] = {
      {"10.0.0.1", "eth0", true},
      {"fd00::1", "ib0", true},
      {"169.253.0.1", "eth0", true},
      {"169.254.0.1", "eth0", false},
      {"::ffff:169.254.0.1", "eth0", false},
      {"fe80::1", "eth0", false},
      {"febf::1", "eth0", false},
      {"fec0::1", "eth0", true},
      {"a9fe::1", "eth0", true},
      {"172.17.0.1", "docker0", false},
      {"10.0.0.1", "br-0f3a", false},
      {"10.0.0.1", "br0", true},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(LeadsFar(Address::FromIp(row.ip, 0)->bytes(), row.interface), row.far)
        << row.ip << " on " << row.interface;
  }
}

TEST(Lookup, NumericAndAny) {
  const auto one = Lookup({"10.0.0.1", 7471}, false);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_EQ(one->size(), 1u);
  EXPECT_EQ(one->front().ToString(), "10.0.0.1:7471");

  const auto any = Lookup({"", 7471}, true);
  ASSERT_TRUE(any.ok()) << any.status();
  EXPECT_TRUE(any->front().is_any());
  EXPECT_EQ(any->front().port(), 7471);

  const auto here = Lookup({"", 7471}, false);
  ASSERT_TRUE(here.ok()) << here.status();
  EXPECT_TRUE(here->front().is_loopback());
}

// ".invalid" never exists (RFC 6761). Expect: host, the resolver's words, a remedy.
TEST(Lookup, UnknownHost) {
  const auto none = Lookup({"no-such-host.invalid", 1}, false);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(none.status().message().find("host \"no-such-host.invalid\": "), std::string::npos);
  EXPECT_NE(none.status().message().find("give an address"), std::string::npos) << none.status();
}

}  // namespace
}  // namespace verbena::provider
