// E-mail and IP addresses in running text.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

namespace retort {

/// The e-mail address around the '@' at `at`, as [begin, end): a dot-atom of RFC 5321 and a domain under a top-level
/// domain of the public suffix list; letters of the Latin script may be accented. None for the user of a URL or of scp
/// (git@host:path).
std::optional<std::pair<size_t, size_t>> email_at(std::string_view text, size_t at);

/// Four decimal numbers to 255 without leading zeros. `global`: only addresses that IANA's special-purpose registry
/// calls globally reachable.
bool is_ipv4(std::string_view address, bool global);
/// Every text form of RFC 4291, without a zone; `global` as above.
bool is_ipv6(std::string_view address, bool global);

}  // namespace retort
