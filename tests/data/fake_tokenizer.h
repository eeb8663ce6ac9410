// A tokenizer whose tokens are bytes: tests of templates, packing and caching need no model.
#pragma once

#include "data/tokenizer.h"

namespace retort {

class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(std::string chat_template = "", bool adds_bos = false)
      : template_(std::move(chat_template)), adds_bos_(adds_bos) {}
  std::vector<int32_t> encode(const std::string& text, bool special, bool bos) const override {
    std::vector<int32_t> ids;
    if (bos && adds_bos_) ids.push_back(1);
    for (size_t i = 0; i < text.size();) {
      if (special && text.compare(i, 3, "<s>") == 0) {
        ids.push_back(1), i += 3;
      } else if (special && text.compare(i, 4, "</s>") == 0) {
        ids.push_back(2), i += 4;
      } else {
        ids.push_back(3 + static_cast<uint8_t>(text[i++]));
      }
    }
    return ids;
  }
  std::vector<int32_t> encode_after(const std::string& text) const override { return encode(text, true, false); }
  std::string decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (int32_t id : ids) text += piece(id);
    return text;
  }
  std::string piece(int32_t id) const override {
    return id == 1 ? "<s>" : id == 2 ? "</s>" : std::string(1, static_cast<char>(id - 3));
  }
  int64_t size() const override { return 259; }
  int32_t bos() const override { return 1; }
  int32_t eos() const override { return 2; }
  bool adds_bos() const override { return adds_bos_; }
  bool adds_eos() const override { return false; }
  bool ends_generation(int32_t id) const override { return id == 2; }
  std::string hash() const override { return adds_bos_ ? "bytes with BOS" : "bytes"; }
  std::string chat_template() const override { return template_; }

 private:
  std::string template_;
  bool adds_bos_;
};

}  // namespace retort
