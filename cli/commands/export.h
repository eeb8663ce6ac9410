// What retort export does, for other commands that write files of an adapter and its base.
#pragma once

#include <string>

namespace retort {

struct ExportArguments {
  std::string run = {}, model = {}, adapter = {}, format = "gguf", type = {}, imatrix = {}, out = {}, name = {},
              license = {};
  int threads = 0;
  bool list_types = false;
};

int run_export(ExportArguments options);

}  // namespace retort
