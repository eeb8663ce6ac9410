#include "distill/cache_shard.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

constexpr const char* format_name = "retort-logits-2";

// The models in ShardCode: one each for the following, then one for each mass of a position.
enum Context { count_context, label_context, label_log_p_context, id_context, log_p_context, masses_context = 12 };
constexpr int log_p_contexts = masses_context - log_p_context;  // by rank, the last for all further ones
constexpr int fraction_bits = 12;                               // of the prediction's factors

/// A mass is predicted from those before it in its position: prediction holds for each mass its constant and a factor
/// for each one before. In 32 bits that wrap, so that every machine predicts the same.
uint8_t predicted(const int32_t* factors, const uint8_t* masses, int64_t before) {
  uint32_t sum = static_cast<uint32_t>(factors[0]) + (1u << (fraction_bits - 1));
  for (int64_t i = 0; i < before; ++i) sum += static_cast<uint32_t>(factors[1 + i]) * masses[i];
  return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum) >> fraction_bits, 0, no_mass - 1));
}

/// The order of a document's symbols, for whoever counts, writes or reads them: `code(context, value)` and
/// `code.id(value)` take or give a value. `rows` has its positions and the right sizes.
template <typename Code>
void walk(Code& code, const ShardLayout& layout, const std::vector<int32_t>& prediction,
          std::span<const int32_t> labels, CacheRows& rows) {
  size_t first = 0;  // of the position's ids
  for (size_t r = 0; r < labels.size(); ++r) {
    uint32_t count = rows.counts[r];
    code(count_context, count);
    rows.counts[r] = static_cast<uint8_t>(count);
    if constexpr (Code::reads) {
      rows.ids.resize(first + count);
      rows.log_p.resize(first + count);
    }
    // The label is known to who asks: among the stored tokens it takes a rank, and its log-probability is theirs.
    const auto ids = std::span(rows.ids).subspan(first, count);
    auto label = static_cast<uint32_t>(std::find(ids.begin(), ids.end(), labels[r]) - ids.begin());
    code(label_context, label);
    uint32_t before = 0;
    for (uint32_t i = 0; i < count; ++i) {
      uint32_t step = rows.log_p[first + i] - before;
      code(log_p_context + std::min<int>(static_cast<int>(i), log_p_contexts - 1), step);
      before = std::min<uint32_t>(255, before + step);
      rows.log_p[first + i] = static_cast<uint8_t>(before);
    }
    if (label < count) {
      rows.label_log_p[r] = rows.log_p[first + label];
      ids[label] = labels[r];
    } else {
      uint32_t log_p = rows.label_log_p[r];
      code(label_log_p_context, log_p);
      rows.label_log_p[r] = static_cast<uint8_t>(log_p);
    }
    for (uint32_t i = 0; i < count; ++i)
      if (i != label) code.id(ids[i]);
    uint8_t* masses = rows.masses.data() + r * layout.masses;
    const int32_t* factors = prediction.data();
    for (int64_t m = 0; m < layout.masses; factors += ++m) {
      const uint8_t guess = predicted(factors, masses, m);
      uint32_t difference = static_cast<uint8_t>(masses[m] - guess);
      code(masses_context + static_cast<int>(m), difference);
      masses[m] = static_cast<uint8_t>(guess + difference);
    }
    for (int64_t s = 0; s < layout.samples; ++s) code.id(rows.samples[r * layout.samples + s]);
    first += count;
  }
}

struct Counter {
  static constexpr bool reads = false;
  std::vector<std::vector<int64_t>> counts;
  std::vector<int64_t> ids;
  void operator()(int context, uint32_t value) { ++counts[context][value]; }
  void id(int32_t value) { ++ids[value]; }
};

struct Writer {
  static constexpr bool reads = false;
  const ShardCode& code;
  std::vector<std::pair<const SymbolModel*, uint32_t>> symbols = {};  // without a model: the low bits of an id
  void operator()(int context, uint32_t value) { symbols.emplace_back(&code.models[context], value); }
  void id(int32_t value) {
    (*this)(id_context, static_cast<uint32_t>(value) >> code.id_shift);
    symbols.emplace_back(nullptr, static_cast<uint32_t>(value) & ((1u << code.id_shift) - 1));
  }
  /// The bytes of what came since the last call.
  std::vector<uint8_t> finish() {
    SymbolEncoder encoder;
    for (; !symbols.empty(); symbols.pop_back()) {
      const auto [model, value] = symbols.back();
      if (model)
        encoder.put(*model, value);
      else
        encoder.put_bits(value, code.id_shift);
    }
    return encoder.finish();
  }
};

struct Reader {
  static constexpr bool reads = true;
  const ShardCode& code;
  SymbolDecoder decoder;
  uint32_t largest_id = 0;
  void operator()(int context, uint32_t& value) { value = decoder.get(code.models[context]); }
  void id(int32_t& value) {
    const uint32_t high = decoder.get(code.models[id_context]);
    const uint32_t id = high << code.id_shift | decoder.get_bits(code.id_shift);
    largest_id = std::max(largest_id, id);
    value = static_cast<int32_t>(id);
  }
};

/// The best linear prediction of each mass from those before it: the rows of I - L^-1, where L D L^T is the covariance.
std::vector<int32_t> fit_prediction(const at::Tensor& masses) {
  const int64_t n = masses.size(0), m = masses.size(1);
  const at::Tensor mean = masses.mean(0, false, at::kDouble);
  at::Tensor covariance = at::zeros({m, m}, at::kDouble);
  for (int64_t begin = 0; begin < n; begin += 8192) {
    const at::Tensor centred = masses.slice(0, begin, std::min(n, begin + 8192)).to(at::kDouble) - mean;
    covariance.addmm_(centred.t(), centred);
  }
  // What the steps' rounding adds to a variance, and something that keeps few positions from being fitted too closely.
  covariance = covariance / static_cast<double>(n) + at::eye(m, at::kDouble) * (1.0 / 12 + double(m) / double(n));
  const at::Tensor factor = at::linalg_cholesky(covariance), ones = at::eye(m, at::kDouble);
  const at::Tensor inverse = at::linalg_solve_triangular(factor / factor.diagonal(), ones, false, true, true);
  const at::Tensor factors = ones - inverse, constants = mean - factors.mv(mean);
  const auto fixed = [](const at::Tensor& x) { return (x * (1 << fraction_bits)).round().to(at::kInt).contiguous(); };
  const at::Tensor a = fixed(factors), b = fixed(constants);
  std::vector<int32_t> prediction;
  for (int64_t i = 0; i < m; ++i) {
    prediction.push_back(b.const_data_ptr<int32_t>()[i]);
    const int32_t* row = a.const_data_ptr<int32_t>() + i * m;
    prediction.insert(prediction.end(), row, row + i);
  }
  return prediction;
}

/// The number of low bits that are not worth a model: those for which model and ids together are smallest.
void choose_id_model(std::span<const int64_t> ids, ShardCode& code) {
  double best = 0;
  for (int shift = 8; shift >= 0; --shift) {
    std::vector<int64_t> counts((ids.size() >> shift) + 1);
    if (static_cast<int64_t>(counts.size()) > SymbolModel::most_symbols) break;
    int64_t all = 0;
    for (size_t i = 0; i < ids.size(); ++i) counts[i >> shift] += ids[i], all += ids[i];
    SymbolModel model = SymbolModel::from_counts(counts);
    const double bits =
        model.cost(counts) + static_cast<double>(all * shift) + 16.0 * static_cast<double>(counts.size());
    if (shift < 8 && bits >= best) continue;
    best = bits;
    code.id_shift = shift;
    code.models[id_context] = std::move(model);
  }
}

void put_number(std::vector<uint8_t>& bytes, uint64_t value) {
  for (; value >= 128; value >>= 7) bytes.push_back(static_cast<uint8_t>(value | 128));
  bytes.push_back(static_cast<uint8_t>(value));
}

/// Reads a number and moves on; what ends too early reads as if zeros followed.
uint64_t take_number(std::span<const uint8_t>& bytes) {
  uint64_t value = 0;
  for (int shift = 0; shift < 63 && !bytes.empty(); shift += 7) {
    const uint8_t byte = bytes[0];
    bytes = bytes.subspan(1);
    value |= uint64_t{byte & 127u} << shift;
    if (byte < 128) break;
  }
  return value;
}

/// Positions as runs: how many there are, then the gap before each and its length.
void put_positions(std::vector<uint8_t>& bytes, std::span<const int32_t> positions) {
  std::vector<uint64_t> runs;
  int32_t next = 0;
  for (size_t begin = 0, end = 0; begin < positions.size(); begin = end) {
    while (end < positions.size() && positions[end] - positions[begin] == static_cast<int32_t>(end - begin)) ++end;
    runs.push_back(static_cast<uint64_t>(positions[begin] - next));
    runs.push_back(end - begin);
    next = positions[end - 1] + 1;
  }
  put_number(bytes, runs.size() / 2);
  for (uint64_t number : runs) put_number(bytes, number);
}

std::vector<int32_t> take_positions(std::span<const uint8_t>& bytes, size_t document_tokens) {
  std::vector<int32_t> positions;
  uint64_t at = 0;
  for (uint64_t runs = take_number(bytes); runs > 0 && !bytes.empty(); --runs) {
    at += take_number(bytes);
    for (uint64_t left = take_number(bytes); left > 0 && at + 1 < document_tokens; --left, ++at)
      positions.push_back(static_cast<int32_t>(at));
  }
  return positions;
}

}  // namespace

Json ShardStatistics::to_json() const {
  return {{"documents", documents},    {"positions", positions},   {"stored_tokens", stored_tokens},
          {"tail_mass", tail_mass},    {"label_nats", label_nats}, {"coding_nats", coding_nats},
          {"hidden_nats", hidden_nats}};
}

ShardStatistics ShardStatistics::from_json(const Json& json, const std::string& where) {
  ShardStatistics statistics{
      json_get<int64_t>(json, "documents", where),     json_get<int64_t>(json, "positions", where),
      json_get<int64_t>(json, "stored_tokens", where), json_get<double>(json, "tail_mass", where),
      json_get<double>(json, "label_nats", where),     json_get<double>(json, "coding_nats", where),
      json_get<double>(json, "hidden_nats", where)};
  if (std::min({statistics.documents, statistics.positions, statistics.stored_tokens}) < 0)
    fail(Exit::bad_input, "{}: a negative number", where);
  return statistics;
}

ShardWriter::ShardWriter(const std::filesystem::path& path, const ShardLayout& layout, const Json& header)
    : layout_(layout), file_(Hdf5File::create(path)) {
  file_.write_attribute("format", format_name);
  file_.write_attribute("cache", header.dump());
  if (layout.full) file_.create_array<uint16_t>("full", layout.vocab, std::max<int64_t>(1, 65536 / layout.vocab));
}

void ShardWriter::add(std::span<const int32_t> ids, CacheRows rows) {
  const DocumentKey key = document_key(ids);
  keys_.push_back(static_cast<int64_t>(key.high));
  keys_.push_back(static_cast<int64_t>(key.low));
  positions_.push_back(static_cast<int32_t>(rows.size()));
  Document document;
  for (int32_t position : rows.positions) document.labels.push_back(ids[position + 1]);
  ++statistics_.documents;
  statistics_.positions += rows.size();
  statistics_.stored_tokens += static_cast<int64_t>(rows.ids.size());
  statistics_.tail_mass += static_cast<double>(rows.size());
  for (uint8_t byte : rows.log_p) statistics_.tail_mass -= std::exp(-log_p_step * byte);
  for (uint8_t byte : rows.label_log_p) statistics_.label_nats += log_p_step * byte;
  statistics_.coding_nats += rows.coding_nats;
  statistics_.hidden_nats += rows.hidden_nats;
  if (layout_.full) {
    const at::Tensor full = rows.full.contiguous();
    file_.append<uint16_t>("full", {reinterpret_cast<const uint16_t*>(full.const_data_ptr()), size_t(full.numel())});
    rows.full.reset();
  }
  document.rows = std::move(rows);
  documents_.push_back(std::move(document));
}

ShardStatistics ShardWriter::finish() {
  std::vector<uint8_t> masses;
  for (const Document& d : documents_) masses.insert(masses.end(), d.rows.masses.begin(), d.rows.masses.end());
  ShardCode code;
  code.prediction = fit_prediction(
      at::from_blob(masses.data(), {static_cast<int64_t>(masses.size()) / layout_.masses, layout_.masses}, at::kByte));
  Counter counter{std::vector(masses_context + layout_.masses, std::vector<int64_t>(256)),
                  std::vector<int64_t>(layout_.vocab)};
  for (Document& d : documents_) walk(counter, layout_, code.prediction, d.labels, d.rows);
  for (const auto& counts : counter.counts) code.models.push_back(SymbolModel::from_counts(counts));
  choose_id_model(counter.ids, code);

  std::vector<uint16_t> words = {static_cast<uint16_t>(code.id_shift)};
  for (const SymbolModel& model : code.models) model.append_to(words);
  std::vector<int32_t> sizes;
  std::vector<uint8_t> bytes;
  Writer writer{code};
  for (Document& d : documents_) {
    const size_t before = bytes.size();
    put_positions(bytes, d.rows.positions);
    walk(writer, layout_, code.prediction, d.labels, d.rows);
    const std::vector<uint8_t> coded = writer.finish();
    bytes.insert(bytes.end(), coded.begin(), coded.end());
    sizes.push_back(static_cast<int32_t>(bytes.size() - before));
  }
  const auto write = [&](const char* name, const auto& values, int64_t columns = 1) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    const int64_t rows = static_cast<int64_t>(values.size()) / columns;
    file_.create_array<Value>(name, columns, std::clamp<int64_t>(rows, 1, 16384));
    file_.append<Value>(name, values);
  };
  write("keys", keys_, 2);
  write("positions", positions_);
  write("sizes", sizes);
  write("models", words);
  write("prediction", code.prediction);
  write("code", bytes);
  const auto n = static_cast<double>(std::max<int64_t>(1, statistics_.positions));
  statistics_.tail_mass = std::max(0.0, statistics_.tail_mass / n);
  statistics_.label_nats /= n;
  statistics_.coding_nats /= n;
  statistics_.hidden_nats /= n;
  file_.write_attribute("statistics", statistics_.to_json().dump());
  file_.seal();
  return statistics_;
}

ShardReader::ShardReader(const std::filesystem::path& path, bool verify)
    : path_(path.string()), file_(Hdf5File::open(path, verify)) {
  if (const std::string format = file_.attribute("format"); format != format_name)
    fail(Exit::bad_input,
         "{}: the file's format is \"{}\", expected \"{}\"; fill another folder with retort cache-teacher", path_,
         format, format_name);
  header_ = parse_json(file_.attribute("cache"), path_ + ": cache");
  statistics_ = ShardStatistics::from_json(parse_json(file_.attribute("statistics"), path_), path_ + ": statistics");
  std::vector<uint16_t> words(file_.rows("models"));
  file_.expect_array<uint16_t>("models", static_cast<int64_t>(words.size()), 1);
  file_.read<uint16_t>("models", 0, words);
  if (words.empty() || words[0] > 8) fail(Exit::bad_input, "{}: the table \"models\" does not read", path_);
  code_.id_shift = words[0];
  for (size_t at = 1; at < words.size();) {
    code_.models.push_back(SymbolModel::parse(words, at, path_));
    // All but ids are bytes.
    if (const uint32_t end = code_.models.back().end(); code_.models.size() != id_context + 1 && end > 256)
      fail(Exit::bad_input, "{}: table {} of \"models\" codes a {}, at most 255 is allowed", path_,
           code_.models.size() - 1, end - 1);
  }
  code_.prediction.resize(file_.rows("prediction"));
  file_.expect_array<int32_t>("prediction", static_cast<int64_t>(code_.prediction.size()), 1);
  file_.read<int32_t>("prediction", 0, code_.prediction);
}

std::vector<ShardReader::Entry> ShardReader::entries() const {
  const int64_t documents = file_.rows("keys");
  file_.expect_array<int64_t>("keys", documents, 2);
  file_.expect_array<int32_t>("positions", documents, 1);
  file_.expect_array<int32_t>("sizes", documents, 1);
  std::vector<int64_t> keys(2 * documents);
  std::vector<int32_t> positions(documents), sizes(documents);
  file_.read<int64_t>("keys", 0, keys);
  file_.read<int32_t>("positions", 0, positions);
  file_.read<int32_t>("sizes", 0, sizes);
  std::vector<Entry> entries;
  int64_t byte = 0, row = 0;
  for (int64_t d = 0; d < documents; ++d) {
    if (sizes[d] < 0 || positions[d] < 0) fail(Exit::bad_input, "{}: document {} has a negative size", path_, d);
    const DocumentKey key{static_cast<uint64_t>(keys[2 * d]), static_cast<uint64_t>(keys[2 * d + 1])};
    entries.push_back({key, byte, row, sizes[d], positions[d]});
    byte += sizes[d];
    row += positions[d];
  }
  if (documents != statistics_.documents || row != statistics_.positions)
    fail(Exit::bad_input, "{}: the shard has {} documents of {} positions, its statistics say {} of {}", path_,
         documents, row, statistics_.documents, statistics_.positions);
  file_.expect_array<uint8_t>("code", byte, 1);
  return entries;
}

CacheRows ShardReader::read(const Entry& entry, std::span<const int32_t> ids, const ShardLayout& layout) const {
  const size_t contexts = masses_context + layout.masses;
  if (code_.models.size() != contexts ||
      static_cast<int64_t>(code_.prediction.size()) != layout.masses * (layout.masses + 1) / 2)
    fail(Exit::bad_input, "{}: the shard holds {} models, its cache has {}", path_, code_.models.size(), contexts);
  std::vector<uint8_t> bytes(entry.bytes);
  file_.read<uint8_t>("code", entry.first_byte, bytes);
  std::span<const uint8_t> left = bytes;
  CacheRows rows;
  rows.positions = take_positions(left, ids.size());
  const int64_t n = rows.size();
  std::vector<int32_t> labels;
  for (int32_t position : rows.positions) labels.push_back(ids[position + 1]);
  rows.counts.resize(n);
  rows.label_log_p.resize(n);
  rows.masses.resize(n * layout.masses);
  rows.samples.resize(n * layout.samples);
  Reader reader{code_, SymbolDecoder(left)};
  walk(reader, layout, code_.prediction, labels, rows);
  if (n != entry.positions || !reader.decoder.finished() || reader.largest_id >= layout.vocab)
    fail(Exit::bad_input, "{}: the bytes {} to {} are no document of {} positions", path_, entry.first_byte,
         entry.first_byte + entry.bytes, entry.positions);
  if (layout.full) {
    file_.expect_array<uint16_t>("full", statistics_.positions, layout.vocab);
    rows.full = at::empty({n, layout.vocab}, at::kHalf);
    file_.read<uint16_t>("full", entry.first_row,
                         {static_cast<uint16_t*>(rows.full.mutable_data_ptr()), size_t(rows.full.numel())});
  }
  return rows;
}

}  // namespace retort
