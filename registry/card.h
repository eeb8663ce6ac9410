// What people and hubs read of a version: the model card, and a folder that holds all of it.
#pragma once

#include <filesystem>
#include <string>

#include "registry/registry.h"

namespace retort {

/// The version with its evaluations, the decisions about it, and the last state of the drift alarm over it.
Json describe_version(const Registry& registry, const ModelVersion& version);
Json describe_decision(const RegistryDecision& decision);

/// Markdown with the front matter that Hugging Face reads. Of `info` it shows every value, a section an object;
/// "license", "base_model", "datasets" and "language" also stand in the front matter. Evaluations have an interval
/// where they have a standard error.
std::string model_card(const Registry& registry, const ModelVersion& version);

/// Writes the file, README.md (the card), version.json, decisions.jsonl and SHA256SUMS into a fresh folder that appears
/// whole. Error(usage) when there is something under that name, Error(bad_input) when the file lost its hash.
void export_version(const Registry& registry, const ModelVersion& version, const std::filesystem::path& folder);

}  // namespace retort
