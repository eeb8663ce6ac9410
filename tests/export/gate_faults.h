// What the tests of the gate share: chats to predict on, and files that were damaged on purpose.
#pragma once

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/example.h"
#include "export/gate.h"
#include "models/family.h"
#include "models/gguf.h"

namespace retort {

inline Chat chat_of(const std::string& question, const std::string& answer) {
  Chat chat;
  chat.place = chat.key = question;
  chat.messages = {{"user", question}, {"assistant", answer}};
  return chat;
}

inline std::vector<Chat> questions() {
  return {
      chat_of("To which field does \"RFC 1392\" (published 1993-01-15, 53 pages) belong?", "networking"),
      chat_of("What is an \"abstract syntax tree\"? It is a data structure for something that has been parsed.",
              "compiler"),
      chat_of("Term: 4GL. A fourth generation language, 1981; see 3GL, 5GL.", "language"),
      chat_of("Name the category of:\n  FOLDOC's entry \"modem\" -- modulator/demodulator, 2400 bit/s.", "hardware"),
      chat_of("Which category? \"Zipf's law\": the frequency of a word's rank n is 1/n^a, a >= 1.", "mathematics")};
}

using Bytes = std::vector<uint8_t>;

using ChangeKeys = std::function<void(GgufWriter&)>;
using ChangeTensor = std::function<void(const std::string& name, Bytes& bytes)>;

/// A copy of `from` at `path` in which keys and tensors were changed on purpose.
inline void write_changed(const std::filesystem::path& from, const std::filesystem::path& path, const ChangeKeys& keys,
                          const ChangeTensor& tensors) {
  const auto file = GgufFile::open(from);
  GgufWriter writer;
  writer.copy_metadata(*file);
  if (keys) keys(writer);
  for (const QuantizedTensor& tensor : file->tensors()) writer.add(tensor.name(), tensor.type(), tensor.shape());
  writer.begin(path);
  for (const QuantizedTensor& tensor : file->tensors()) {
    Bytes bytes(tensor.bytes().begin(), tensor.bytes().end());
    if (tensors) tensors(tensor.name(), bytes);
    writer.write(tensor.name(), bytes);
  }
  writer.commit();
}

/// Rows of q and k in Hugging Face's order: what an exporter writes that forgets to permute them.
inline void unpermute(const ModelConfig& config, const std::string& name, Bytes& bytes) {
  for (const TensorSpec& spec : family_of(config).tensors(config)) {
    if (spec.gguf != name || spec.permuted_heads == 0) continue;
    const Bytes before = bytes;
    const auto order = rows_to_hf(spec);
    const size_t row = bytes.size() / order.size();
    for (size_t i = 0; i < order.size(); ++i) {
      std::memcpy(&bytes[i * row], &before[static_cast<size_t>(order[i]) * row], row);
    }
  }
}

inline void change_floats(Bytes& bytes, const std::function<float(float)>& change) {
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    float value;
    std::memcpy(&value, &bytes[i], 4);
    value = change(value);
    std::memcpy(&bytes[i], &value, 4);
  }
}

inline std::string reasons(const GateReport& report) { return fmt::format("{}", fmt::join(report.reasons, "\n")); }

inline void expect_refused(const GateReport& report, const std::string& why) {
  EXPECT_FALSE(report.passed);
  EXPECT_NE(reasons(report).find(why), std::string::npos) << "reasons:\n" << reasons(report);
}

}  // namespace retort
