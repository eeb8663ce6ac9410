// One key many times gives what one call each gives, whose values are RFC 4231's (FilesTest).
#include "core/hmac.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "core/hash.h"

namespace retort {
namespace {

TEST(HmacSha256, IsHmacSha256ForKeysOfAnyLength) {
  for (const size_t length : {0, 1, 20, 32, 63, 64, 65, 131, 1000}) {
    const std::string key(length, '\xaa');
    const HmacSha256 hmac(key);
    for (const std::string& text : {std::string(), std::string("Hi There"), std::string(100000, 'x')})
      EXPECT_EQ(hmac(text), hmac_sha256(key, text)) << length;
  }
}

TEST(HmacSha256, MayBeUsedByThreadsAtOnce) {
  const HmacSha256 hmac("key");
  const std::string expected = hmac_sha256("key", "text");
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) wrong[t] += hmac("text") != expected;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

}  // namespace
}  // namespace retort
