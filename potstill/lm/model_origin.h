// Where a model comes from and under which licence it may be used: read out of a GGUF's keys or a folder's model card,
// and carried into what is made of it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "potstill/formats/gguf.h"

namespace potstill {

struct BaseModel {
  std::string name;          // "SmolLM2-135M-Instruct"
  std::string organization;  // "HuggingFaceTB"; may be empty

  std::string id() const { return organization.empty() ? name : organization + "/" + name; }  // the Hub's
};

struct ModelOrigin {
  std::string name;
  std::string organization;
  std::string license;       // SPDX or the Hub's word: "apache-2.0", "llama3.2"
  std::string license_name;  // where license is "other"
  std::string license_link;
  std::vector<std::string> languages, tags;
  std::vector<BaseModel> base_models;
  bool by_potstill = false;  // a model that potstill made: its base models stay those of what is made of it
};

// Of a model folder (README.md's front matter) or a GGUF file. Nothing is required: what is not said stays empty.
ModelOrigin read_model_origin(const std::filesystem::path& model);

// Of a model that is made of `source`.
ModelOrigin derived_origin(const ModelOrigin& source);

// general.license, general.base_model.*, general.languages, general.tags as llama.cpp's converter names them.
GgufMetadata origin_to_gguf(const ModelOrigin& origin);

// A model card: front matter for the Hub (licence, base model, languages, tags), then `title` and `body` in Markdown.
std::string model_card(const ModelOrigin& origin, std::string_view title, const std::vector<std::string>& tags,
                       std::string_view body);

}  // namespace potstill
