// Sources with a cache, programs and an environment of their own.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/log.h"
#include "core/sources.h"
#include "tests/core/support.h"

namespace retort {

struct SourcesTest : testing::Test {
  TemporaryFolder folder;
  std::string old_path = std::getenv("PATH");

  SourcesTest() {
    setenv("RETORT_CACHE", (folder / "cache").c_str(), 1);
    setenv("PATH", ((folder / "bin").string() + ":" + old_path).c_str(), 1);
    std::filesystem::create_directories(folder / "bin");
    spdlog::set_level(spdlog::level::off);
  }
  ~SourcesTest() override {
    for (const char* name : {"RETORT_CACHE", "HF_ENDPOINT", "HF_TOKEN"}) unsetenv(name);
    setenv("PATH", old_path.c_str(), 1);
    spdlog::set_level(spdlog::level::info);
  }

  // A program of this name that runs the shell script.
  void fake(const std::string& name, const std::string& script) {
    std::ofstream(folder / ("bin/" + name)) << "#!/bin/sh\n" << script;
    std::filesystem::permissions(folder / ("bin/" + name), std::filesystem::perms::owner_all);
  }
  // python3 -m pip download … --dest FOLDER REQUIREMENT, with a wheel of this content; counts its calls.
  void fake_pip(const std::string& wheel) {
    std::ofstream(folder / "wheel") << wheel;
    fake("python3", fmt::format("echo \"$@\" >> {0}/calls\nwhile [ \"$1\" != --dest ]; do shift; done\n"
                                "cp {0}/wheel \"$2\"/demo-1.0-py3-none-any.whl\n",
                                folder.path().string()));
  }
  int calls() {
    std::ifstream in(folder / "calls");
    int n = 0;
    for (std::string line; std::getline(in, line);) ++n;
    return n;
  }
  static std::filesystem::path get(const std::string& uri, const std::string& sha256 = "", bool refresh = false) {
    return pull({.uri = uri, .sha256 = sha256, .name = ""}, {.refresh = refresh, .retry_seconds = 0.01});
  }
};

}  // namespace retort
