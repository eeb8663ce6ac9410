#include "recipes/retrain_rows.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "recipes/prepare.h"

namespace retort {

RowSet RowSet::of(const std::vector<DatasetOptions>& files, const std::string& key) {
  RowSet set;
  const Stream<Chat> chats = chats_of(files);
  for (Chat chat; chats(chat); chat = {}) {
    std::string bytes;
    const auto add = [&](const std::string& text) { bytes += fmt::format("{} {}", text.size(), text); };
    for (const Message& message : chat.messages) add(message.role), add(message.content);
    add(chat.text);
    uint64_t hash;
    std::memcpy(&hash, hmac_sha256(key, bytes).data(), sizeof hash);
    set.hashes_.push_back(hash);
  }
  std::sort(set.hashes_.begin(), set.hashes_.end());
  set.hashes_.erase(std::unique(set.hashes_.begin(), set.hashes_.end()), set.hashes_.end());
  return set;
}

RowSet RowSet::read(const std::filesystem::path& path) {
  constexpr size_t kLine = 17;
  const std::string text = read_text(path);
  RowSet set;
  for (size_t at = 0; at < text.size(); at += kLine) {
    uint64_t hash = 0;
    const char* end = text.data() + std::min(at + kLine - 1, text.size());
    const auto [rest, error] = std::from_chars(text.data() + at, end, hash, 16);
    if (error != std::errc() || rest != end || at + kLine > text.size() || *end != '\n')
      fail(Exit::bad_input, "{}:{}: found \"{}\", a hash of 16 digits is needed", path.string(), at / kLine + 1,
           text.substr(at, kLine - 1));
    set.hashes_.push_back(hash);
  }
  if (!std::is_sorted(set.hashes_.begin(), set.hashes_.end()))
    fail(Exit::bad_input, "{}: the hashes are not in order: the file was edited", path.string());
  return set;
}

void RowSet::write(const std::filesystem::path& path) const {
  std::string text;
  for (const uint64_t hash : hashes_) text += fmt::format("{:016x}\n", hash);
  write_atomic(path, text);
}

int64_t RowSet::beyond(const RowSet& other) const {
  std::vector<uint64_t> rest;
  std::set_difference(hashes_.begin(), hashes_.end(), other.hashes_.begin(), other.hashes_.end(),
                      std::back_inserter(rest));
  return static_cast<int64_t>(rest.size());
}

std::string retrain_key(const Recipe& recipe, const std::vector<DatasetOptions>& train,
                        const std::vector<DatasetOptions>& validation, const std::string& judged,
                        const std::string& base, const std::string& code, const std::string& slot) {
  std::string parts = recipe.hash + "\n" + judged + "\n" + base + "\n" + code + "\n" + slot + "\n";
  for (const auto* files : {&train, &validation}) {
    for (const DatasetOptions& file : *files) parts += dataset_hash(file) + "\n";
    parts += "\n";
  }
  return sha256_hex(parts);
}

}  // namespace retort
