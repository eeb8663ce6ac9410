#include "data/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "data/vocabulary_source.h"

namespace retort {
namespace {

void load(const std::filesystem::path& path, sentencepiece::SentencePieceProcessor& processor) {
  std::string bytes = read_text(path);
  sentencepiece::util::Status status;
  try {
    status = processor.LoadFromSerializedProto(bytes);
  } catch (const std::exception& error) {
    fail(Exit::bad_input, "{}: not a SentencePiece model: {}", path.string(), error.what());
  }
  if (!status.ok()) fail(Exit::bad_input, "{}: not a SentencePiece model: {}", path.string(), status.ToString());
  if (processor.GetPieceSize() == 0) fail(Exit::bad_input, "{}: a SentencePiece model without pieces", path.string());
}

std::string list(const std::vector<int32_t>& ids, size_t from) {
  std::string text;
  for (size_t i = from; i < std::min(ids.size(), from + 6); ++i)
    text += fmt::format("{}{}", i == from ? "" : " ", ids[i]);
  return text.empty() ? "the end" : text;
}

}  // namespace

const std::vector<std::string>& hard_texts() {
  static const std::vector<std::string> texts = {
      "Hello, world!",
      " leading and trailing  ",
      "two  three   four    spaces",
      "line\nline\n\nparagraph\n\n\n  indented\r\ncarriage",
      "tab\tseparated\t\tvalues",
      "3 33 333 3333 33333 3.14159 1e-10 0x1F 1,234,567",
      "I've been 'told he's there, 'RE you sure? We'Ve a'lL",
      "\xc3\xa9 e\xcc\x81 \xc3\xb1 \xc3\x85ngstr\xc3\xb6m na\xc3\xafve \xef\xac\x81ne \xe2\x85\xa7 \xc2\xbd",
      "\xe6\x88\x91\xe6\x83\xb3\xe5\x9c\xa8\xe5\xb7\xa5\xe4\xbd\x9c \xed\x95\x9c\xea\xb5\xad\xec\x96\xb4 "
      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\xae",
      "\xd0\xbd\xd0\xb5\xd1\x89\xd0\xbe \xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 \xe0\xa4\xa8\xe0\xa4\xae",
      "\xf0\x9f\x9a\x80 \xf0\x9f\x98\xb6\xe2\x80\x8d\xf0\x9f\x8c\xab\xef\xb8\x8f \xe2\x9c\x85 "
      "\xf0\x9f\xa6\x99\xf0\x9f\xa6\x99",
      "a\x01\x02\x1f\x7fz zero\xe2\x80\x8bwidth no\xc2\xa0"
      "break \xef\xbb\xbf"
      "bom",
      "<html><body class=\"x\">&amp;</body></html> [INST] <<SYS>>",
      "def f(x):\n    return {k: v for k, v in x.items()}  # comment\n",
      "------======= \"\"\"\"......!!!!!!?????? ```",
      "Donaudampfschifffahrtselektrizit\xc3\xa4tenhauptbetriebswerkbauunterbeamtengesellschaft",
      std::string(300, 'x'),
      std::string(70, ' ') + "x",
      "\xe2\x96\x81\xe2\x96\x81"
      "escaped space",
      "",
  };
  return texts;
}

VocabularySource read_sentencepiece(const std::filesystem::path& path) {
  sentencepiece::SentencePieceProcessor processor;
  load(path, processor);
  VocabularySource source;
  source.model = "llama";
  source.pre = "default";
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    TokenType type = processor.IsUnknown(id)   ? token_unknown
                     : processor.IsControl(id) ? token_control
                     : processor.IsUnused(id)  ? token_unused
                     : processor.IsByte(id)    ? token_byte
                                               : token_normal;
    source.set(id, processor.IdToPiece(id), type, processor.GetScore(id), path.string());
  }
  std::vector<std::string> pieces = processor.EncodeAsPieces("a");
  source.space_prefix = !pieces.empty() && pieces[0].starts_with("\xe2\x96\x81");
  return source;
}

void check_sentencepiece(const std::filesystem::path& path, const Tokenizer& tokenizer) {
  sentencepiece::SentencePieceProcessor processor;
  load(path, processor);
  for (const std::string& text : hard_texts()) {
    std::vector<int> expected = processor.EncodeAsIds(text);
    std::vector<int32_t> found = tokenizer.encode(text, /*special=*/false);
    auto [there, here] = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
    if (there == expected.end() && here == found.end()) continue;
    size_t at = there - expected.begin();
    fail(Exit::bad_input,
         "{}: libsentencepiece and llama.cpp tokenize {} differently from token {} on: {} against {}; llama.cpp reads "
         "BPE "
         "models without normalization, byte fallback and one space for each space",
         path.string(), Json(text.substr(0, 80)).dump(), at, list(expected, at), list(found, at));
  }
}

}  // namespace retort
