// Real text for benchmarks: the entries of FOLDOC and the Jargon File.
#pragma once

#include <fmt/format.h>

#include "core/sources.h"
#include "data/dataset.h"
#include "data/example.h"

namespace retort {

/// An entry a row, FOLDOC's first.
inline std::vector<Chat> dictionary_entries() {
  std::vector<Chat> chats;
  for (const auto& [package, name] : {std::pair("dict-foldoc", "foldoc"), std::pair("dict-jargon", "jargon")}) {
    const auto file = [&, package = package, name = name](const char* suffix) {
      return pull({.uri = fmt::format("deb:{}!usr/share/dictd/{}{}", package, name, suffix), .sha256 = "", .name = ""});
    };
    const Stream<Row> rows =
        open_rows({.kind = "dictd", .path = file(".dict.dz"), .options = {{"index", file(".index").string()}}});
    for (Row row; rows(row);) {
      Chat chat;
      chat.place = row.place;
      chat.text = row.fields["definition"].get<std::string>();
      chats.push_back(std::move(chat));
    }
  }
  return chats;
}

}  // namespace retort
