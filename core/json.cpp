#include "core/json.h"

#include <unordered_set>

#include "core/files.h"

template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace retort {
namespace {

constexpr size_t kMaxDepth = 200;  // dump() and copies recurse

// Builds the value without ordered_json's own search for the key at every insertion (quadratic: a tokenizer.json has
// hundreds of thousands of keys in one object), and refuses what the standard leaves open: duplicate keys, deep
// nesting.
class Builder : public Json::json_sax_t {
 public:
  explicit Builder(const std::string& where) : where_(where) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return open(Json::object());
  }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second) {
      fail(Exit::bad_input, "{}: key \"{}\" stands twice in one object", where_, key.substr(0, 80));
    }
    key_ = std::move(key);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    open_.pop_back();
    return true;
  }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 3, column 7: …"
    std::string text = error.what();
    if (size_t end = text.find("] "); text.starts_with("[json.") && end != text.npos) text.erase(0, end + 2);
    if (text.size() > 300) text.replace(200, text.npos, " …");
    fail(Exit::bad_input, "{}: not valid JSON: {}", where_, text);
  }

  Json take() { return std::move(root_); }

 private:
  Json* add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
    auto& object = parent.get_ref<Json::object_t&>();
    return &static_cast<Json::object_t::Container&>(object).emplace_back(std::move(key_), std::move(value)).second;
  }
  bool put(Json value) {
    add(std::move(value));
    return true;
  }
  bool open(Json container) {
    if (open_.size() >= kMaxDepth) fail(Exit::bad_input, "{}: nested deeper than {} levels", where_, kMaxDepth);
    // A container's address holds while it is open: its parent grows only after it is closed.
    open_.push_back(add(std::move(container)));
    return true;
  }

  const std::string& where_;
  Json root_;
  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  Builder builder(where);
  Json::sax_parse(text, &builder);
  return builder.take();
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_text(path), path.string()); }

void write_json(const std::filesystem::path& path, const Json& value) {
  write_atomic(path, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace retort
