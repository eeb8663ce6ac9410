// FOLDOC as Debian's dict-foldoc ships it, from the cache of sources.
#pragma once

#include <filesystem>

#include "core/sources.h"

namespace retort {

struct Foldoc {
  std::filesystem::path text, index;
};

inline Foldoc pull_foldoc() {
  auto file = [](const char* uri) { return pull({.uri = uri, .sha256 = "", .name = ""}); };
  return {file("deb:dict-foldoc!usr/share/dictd/foldoc.dict.dz"), file("deb:dict-foldoc!usr/share/dictd/foldoc.index")};
}

}  // namespace retort
