// Addresses of cryptocurrencies, which name a purse as a bank account's number names an account.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace retort {

/// Keccak-256 as Ethereum uses it: Keccak's own padding, not the one of SHA3-256 (which is all that OpenSSL 3.0 has).
std::array<uint8_t, 32> keccak_256(std::string_view bytes);

/// Bitcoin: base58check of versions 0 and 5 (mainnet) and 111 and 196 (test networks), or a segregated-witness address
/// of bc or tb: bech32 for version 0 (BIP 173), bech32m for 1 to 16 (BIP 350).
bool is_bitcoin_address(std::string_view address);

/// Ethereum: 0x and 40 hexadecimal digits, in one case or with the mixed case that EIP-55 computes. Not zero.
bool is_ethereum_address(std::string_view address);

}  // namespace retort
