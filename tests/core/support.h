// What the tests of core share: a folder that goes away, and the check of an Error's code and text.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/temporary_folder.h"

namespace retort {

/// Runs `what`, which must throw Error with this code and a message that holds every one of `parts`.
template <typename F>
void expect_error(Exit exit, const std::vector<std::string>& parts, F&& what) {
  try {
    what();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.exit()), static_cast<int>(exit)) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no \"" << part << "\" in: " << error.what();
    }
    return;
  }
  ADD_FAILURE() << "no error; expected one with \"" << (parts.empty() ? "" : parts[0]) << "\"";
}

}  // namespace retort
