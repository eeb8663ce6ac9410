// TensorBoard event files with scalars, written by hand: a TFRecord holds one Event protobuf.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace retort {

/// CRC-32C (Castagnoli), as TFRecord wants it before masking.
uint32_t crc32c(std::string_view bytes);
/// The record that opens an event file and says its version.
std::string tensorboard_header(double wall_time);
/// One record with a scalar for each tag; `wall_time` in seconds since 1970.
std::string tensorboard_scalars(double wall_time, int64_t step, const std::map<std::string, float>& scalars);

}  // namespace retort
