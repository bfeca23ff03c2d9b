#include "potstill/lm/json_grammar.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "potstill/base/error.h"

namespace potstill {
namespace {

using Json = nlohmann::ordered_json;
using RuleId = Grammar::RuleId;
using Sequence = Grammar::Sequence;

constexpr int kMaxIndent = 24;        // blanks after a line break
constexpr int kMaxDigits = 17;        // before the point and after it: what a double can tell apart
constexpr int64_t kMaxRepeat = 4096;  // minItems, maxLength, …
constexpr int64_t kMaxRange = 1000;   // of an integer between minimum and maximum
constexpr int kMaxSchemaDepth = 64;

Sequence operator+(Sequence a, const Sequence& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The parts that every JSON grammar is made of. RFC 8259.
class JsonRules {
 public:
  Grammar grammar;

  Sequence call(RuleId id) { return {Grammar::rule(id)}; }
  RuleId rule_of(std::vector<Sequence> alternatives) {
    const RuleId id = grammar.add_rule();
    for (auto& alternative : alternatives) grammar.add_alternative(id, std::move(alternative));
    return id;
  }

  // minimum to maximum times `item`, with `separator` between two; maximum -1 = any number.
  RuleId repeat(const Sequence& item, const Sequence& separator, int64_t minimum, int64_t maximum) {
    RuleId rest;  // after at least `minimum` of them
    if (maximum < 0) {
      rest = grammar.add_rule();
      grammar.add_alternative(rest, {});
      grammar.add_alternative(rest, separator + item + call(rest));
    } else {
      rest = rule_of({{}});
      for (int64_t i = std::max<int64_t>(minimum, 1); i < maximum; ++i) {
        rest = rule_of({{}, separator + item + call(rest)});
      }
    }
    for (int64_t i = 1; i < minimum; ++i) rest = rule_of({separator + item + call(rest)});
    if (maximum == 0) return rule_of({{}});
    return minimum > 0 ? rule_of({item + call(rest)}) : rule_of({{}, item + call(rest)});
  }

  RuleId blank() {
    if (blank_ < 0) {
      RuleId indent = rule_of({{}});
      for (int i = 0; i < kMaxIndent; ++i) indent = rule_of({{}, Sequence{Grammar::one_of(" \t")} + call(indent)});
      blank_ = rule_of({{}, Grammar::text(" "), Grammar::text("\n") + call(indent)});
    }
    return blank_;
  }
  Sequence spaced(std::string_view mark) { return Grammar::text(mark) + call(blank()); }

  // One character inside a string; UTF-8 as RFC 3629, section 4, has it.
  RuleId character() {
    if (character_ >= 0) return character_;
    const auto range = [](uint8_t first, uint8_t last) { return Sequence{Grammar::range(first, last)}; };
    const Sequence next = range(0x80, 0xbf);
    Grammar::Element plain = Grammar::range(0x20, 0x7f);
    plain.bytes.reset('"').reset('\\');
    const Sequence hex{Grammar::one_of("0123456789abcdefABCDEF")};
    character_ = rule_of({{plain},
                          Sequence{Grammar::one_of("\\")} + Sequence{Grammar::one_of("\"\\/bfnrt")},
                          // \u of the planes' own characters: surrogates would have to come in pairs
                          Grammar::text("\\u") + Sequence{Grammar::one_of("0123456789abcABCefEF")} + hex + hex + hex,
                          range(0xc2, 0xdf) + next,
                          range(0xe0, 0xe0) + range(0xa0, 0xbf) + next,
                          range(0xe1, 0xec) + next + next,
                          range(0xed, 0xed) + range(0x80, 0x9f) + next,
                          range(0xee, 0xef) + next + next,
                          range(0xf0, 0xf0) + range(0x90, 0xbf) + next + next,
                          range(0xf1, 0xf3) + next + next + next,
                          range(0xf4, 0xf4) + range(0x80, 0x8f) + next + next});
    return character_;
  }

  RuleId string(int64_t minimum = 0, int64_t maximum = -1) {
    if (minimum == 0 && maximum < 0 && string_ >= 0) return string_;
    const RuleId id =
        rule_of({Grammar::text("\"") + call(repeat(call(character()), {}, minimum, maximum)) + Grammar::text("\"")});
    if (minimum == 0 && maximum < 0) string_ = id;
    return id;
  }

  RuleId integer() {
    if (integer_ >= 0) return integer_;
    const Sequence digit{Grammar::range('0', '9')};
    const RuleId more = repeat(digit, {}, 0, kMaxDigits - 1);
    const RuleId natural = rule_of({Grammar::text("0"), Sequence{Grammar::range('1', '9')} + call(more)});
    return integer_ = rule_of({call(natural), Grammar::text("-") + call(natural)});
  }

  RuleId number() {
    if (number_ >= 0) return number_;
    const Sequence digit{Grammar::range('0', '9')};
    const RuleId fraction = rule_of({{}, Grammar::text(".") + call(repeat(digit, {}, 1, kMaxDigits))});
    const RuleId sign = rule_of({{}, {Grammar::one_of("+-")}});
    const RuleId exponent = rule_of({{}, Sequence{Grammar::one_of("eE")} + call(sign) + call(repeat(digit, {}, 1, 2))});
    return number_ = rule_of({call(integer()) + call(fraction) + call(exponent)});
  }

  RuleId array_of(RuleId item, int64_t minimum = 0, int64_t maximum = -1) {
    const RuleId items = repeat(call(item) + call(blank()), spaced(","), minimum, maximum);
    return rule_of({spaced("[") + call(items) + Grammar::text("]")});
  }

  RuleId map_of(RuleId value) {
    const Sequence member = call(string()) + call(blank()) + spaced(":") + call(value) + call(blank());
    return rule_of({spaced("{") + call(repeat(member, spaced(","), 0, -1)) + Grammar::text("}")});
  }

  RuleId any_value() {
    if (value_ >= 0) return value_;
    value_ = grammar.add_rule();
    object_ = map_of(value_);
    const RuleId array = array_of(value_);
    for (const RuleId id : {object_, array, string(), number()}) grammar.add_alternative(value_, call(id));
    for (const char* word : {"true", "false", "null"}) grammar.add_alternative(value_, Grammar::text(word));
    return value_;
  }
  RuleId any_object() {
    any_value();
    return object_;
  }

 private:
  RuleId blank_ = -1, character_ = -1, string_ = -1, integer_ = -1, number_ = -1, value_ = -1, object_ = -1;
};

class SchemaCompiler {
 public:
  SchemaCompiler(const Json& schema, std::string_view where) : schema_(schema), where_(where) {}

  Grammar compile() {
    rules_.grammar.set_start(rule_for(schema_, "#", 0));
    return std::move(rules_.grammar);
  }

 private:
  [[noreturn]] void refuse(const std::string& path, const std::string& what, const char* hint = "") const {
    throw Error(ErrorKind::kInput, where_ + " " + path, what, hint);
  }

  RuleId rule_for(const Json& schema, const std::string& path, int depth) {
    if (depth > kMaxSchemaDepth) refuse(path, fmt::format("is nested deeper than {} levels", kMaxSchemaDepth));
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse(path, "is false, which no document satisfies");
      return rules_.any_value();
    }
    if (!schema.is_object()) refuse(path, fmt::format("is a {}, not a schema", schema.type_name()));
    check_keywords(schema, path);
    if (schema.contains("$ref")) return reference(schema["$ref"], path, depth);
    if (schema.contains("const")) return one_of_values(Json::array({schema["const"]}), path);
    if (schema.contains("enum")) return one_of_values(schema["enum"], path);
    for (const char* key : {"anyOf", "oneOf", "allOf"}) {
      if (schema.contains(key)) return alternatives(schema[key], path + "/" + key, depth);
    }
    if (!schema.contains("type")) {
      if (schema.contains("properties")) return object(schema, path, depth);
      if (schema.contains("items")) return array(schema, path, depth);
      return rules_.any_value();
    }
    const Json& type = schema["type"];
    if (type.is_string()) return rule_for_type(type.get<std::string>(), schema, path, depth);
    if (!type.is_array() || type.empty()) refuse(path + "/type", "is neither a type's name nor a list of them");
    const RuleId id = rules_.grammar.add_rule();
    for (const Json& each : type) {
      if (!each.is_string()) refuse(path + "/type", "is neither a type's name nor a list of them");
      rules_.grammar.add_alternative(id, rules_.call(rule_for_type(each.get<std::string>(), schema, path, depth)));
    }
    return id;
  }

  RuleId rule_for_type(const std::string& type, const Json& schema, const std::string& path, int depth) {
    if (type == "object") return object(schema, path, depth);
    if (type == "array") return array(schema, path, depth);
    if (type == "string") {
      const auto [minimum, maximum] = bounds(schema, "minLength", "maxLength", path);
      return rules_.string(minimum, maximum);
    }
    if (type == "integer") return integer(schema, path);
    if (schema.contains("minimum") || schema.contains("maximum")) {
      refuse(path, "bounds a number, which cannot be kept while it is written",
             "give an integer both minimum and maximum within a thousand values, or check the answer afterwards");
    }
    if (type == "number") return rules_.number();
    if (type == "boolean") return rules_.rule_of({Grammar::text("true"), Grammar::text("false")});
    if (type == "null") return rules_.rule_of({Grammar::text("null")});
    refuse(path + "/type", fmt::format("'{}' is no type of JSON Schema", type),
           "object, array, string, integer, number, boolean or null");
  }

  RuleId integer(const Json& schema, const std::string& path) {
    const bool low = schema.contains("minimum"), high = schema.contains("maximum");
    if (!low && !high) return rules_.integer();
    const auto bound = [&](const char* key) {
      const Json& value = schema[key];
      if (!value.is_number_integer() || value > 1'000'000'000 || value < -1'000'000'000) {
        refuse(path + "/" + key, "is no integer within a thousand millions");
      }
      return value.get<int64_t>();
    };
    if (!low || !high || bound("maximum") < bound("minimum") || bound("maximum") - bound("minimum") > kMaxRange) {
      refuse(path, "bounds an integer on one side, or to more than a thousand values",
             "give both minimum and maximum within a thousand values, or check the answer afterwards");
    }
    const RuleId id = rules_.grammar.add_rule();
    for (int64_t value = bound("minimum"); value <= bound("maximum"); ++value) {
      rules_.grammar.add_alternative(id, Grammar::text(std::to_string(value)));
    }
    return id;
  }

  RuleId one_of_values(const Json& values, const std::string& path) {
    if (!values.is_array() || values.empty()) refuse(path + "/enum", "is no list of values");
    const RuleId id = rules_.grammar.add_rule();
    for (const Json& value : values) rules_.grammar.add_alternative(id, Grammar::text(value.dump()));
    return id;
  }

  RuleId alternatives(const Json& schemas, const std::string& path, int depth) {
    if (!schemas.is_array() || schemas.empty()) refuse(path, "is no list of schemas");
    if (path.ends_with("allOf") && schemas.size() > 1) {
      refuse(path, "has more than one entry", "write their properties into one schema");
    }
    const RuleId id = rules_.grammar.add_rule();
    for (size_t i = 0; i < schemas.size(); ++i) {
      const RuleId each = rule_for(schemas[i], fmt::format("{}/{}", path, i), depth + 1);
      rules_.grammar.add_alternative(id, rules_.call(each));
    }
    return id;
  }

  // A rule of its own for each place that is referred to, made before it is filled: schemas may be recursive.
  RuleId reference(const Json& target, const std::string& path, int depth) {
    if (!target.is_string() || target.get<std::string>().rfind('#', 0) != 0) {
      refuse(path + "/$ref", "points outside the schema", "only '#/…' is followed");
    }
    const auto pointer = target.get<std::string>().substr(1);
    if (const auto known = references_.find(pointer); known != references_.end()) return known->second;
    const RuleId id = rules_.grammar.add_rule();
    references_[pointer] = id;
    const Json* schema = nullptr;
    try {
      schema = &schema_.at(Json::json_pointer(pointer));
    } catch (const nlohmann::json::exception&) {
      refuse(path + "/$ref", fmt::format("'#{}' is not in the schema", pointer));
    }
    // A chain of references alone would be a rule that begins with itself.
    if (schema->is_object() && schema->contains("$ref")) refuse("#" + pointer, "is a reference to a reference");
    rules_.grammar.add_alternative(id, rules_.call(rule_for(*schema, "#" + pointer, depth + 1)));
    return id;
  }

  RuleId array(const Json& schema, const std::string& path, int depth) {
    const auto [minimum, maximum] = bounds(schema, "minItems", "maxItems", path);
    const RuleId item =
        schema.contains("items") ? rule_for(schema["items"], path + "/items", depth + 1) : rules_.any_value();
    return rules_.array_of(item, minimum, maximum);
  }

  // rest(i, first): the members from the i-th property on; an optional one may be left out.
  RuleId object(const Json& schema, const std::string& path, int depth) {
    const Json properties = schema.value("properties", Json::object());
    if (!properties.is_object()) refuse(path + "/properties", "is no object");
    if (properties.empty()) {
      const Json other = schema.value("additionalProperties", Json(true));
      if (other == Json(false)) return rules_.rule_of({rules_.spaced("{") + Grammar::text("}")});
      return rules_.map_of(rule_for(other, path + "/additionalProperties", depth + 1));
    }
    std::set<std::string> required;
    const Json names = schema.value("required", Json::array());
    if (!names.is_array()) refuse(path + "/required", "is no list of names");
    for (const Json& name : names) {
      if (!name.is_string() || !properties.contains(name.get<std::string>())) {
        refuse(path + "/required", fmt::format("{} is none of the properties", name.dump()));
      }
      required.insert(name.get<std::string>());
    }
    std::vector<std::pair<bool, Sequence>> members;
    for (const auto& [name, value] : properties.items()) {
      const RuleId rule = rule_for(value, path + "/properties/" + name, depth + 1);
      members.emplace_back(required.count(name) > 0, Grammar::text(Json(name).dump()) + rules_.call(rules_.blank()) +
                                                         rules_.spaced(":") + rules_.call(rule) +
                                                         rules_.call(rules_.blank()));
    }
    std::array<RuleId, 2> rest{rules_.rule_of({{}}), rules_.rule_of({{}})};  // [is the first member still to come]
    for (auto member = members.rbegin(); member != members.rend(); ++member) {
      std::array<RuleId, 2> here{};
      for (const bool first : {false, true}) {
        std::vector<Sequence> ways{(first ? Sequence{} : rules_.spaced(",")) + member->second + rules_.call(rest[0])};
        if (!member->first) ways.push_back(rules_.call(rest[first]));
        here[first] = rules_.rule_of(std::move(ways));
      }
      rest = here;
    }
    return rules_.rule_of({rules_.spaced("{") + rules_.call(rest[1]) + Grammar::text("}")});
  }

  std::pair<int64_t, int64_t> bounds(const Json& schema, const char* low, const char* high,
                                     const std::string& path) const {
    const auto read = [&](const char* key, int64_t otherwise) {
      if (!schema.contains(key)) return otherwise;
      const Json& value = schema[key];
      if (!value.is_number_integer() || value < 0 || value > kMaxRepeat) {
        refuse(path + "/" + key, fmt::format("is {} but must be an integer in [0, {}]", value.dump(), kMaxRepeat));
      }
      return value.get<int64_t>();
    };
    const int64_t minimum = read(low, 0), maximum = read(high, -1);
    if (maximum >= 0 && minimum > maximum) refuse(path, fmt::format("{} is more than {}", low, high));
    return {minimum, maximum};
  }

  void check_keywords(const Json& schema, const std::string& path) const {
    static const std::set<std::string> kKnown{"type",        "properties", "required",    "additionalProperties",
                                              "items",       "minItems",   "maxItems",    "enum",
                                              "const",       "anyOf",      "oneOf",       "allOf",
                                              "$ref",        "minLength",  "maxLength",   "minimum",
                                              "maximum",     "$defs",      "definitions", "title",
                                              "description", "default",    "examples",    "$schema",
                                              "$id",         "$comment",   "deprecated",  "readOnly",
                                              "writeOnly",   "nullable",   "strict"};
    for (const auto& entry : schema.items()) {
      if (kKnown.count(entry.key()) == 0) {
        refuse(path, fmt::format("'{}' is a keyword that cannot be kept while the answer is written", entry.key()),
               "leave it out and check the answer afterwards");
      }
    }
  }

  const Json& schema_;
  std::string where_;
  JsonRules rules_;
  std::map<std::string, RuleId> references_;  // by JSON pointer
};

}  // namespace

Grammar json_object_grammar() {
  JsonRules rules;
  rules.grammar.set_start(rules.any_object());
  return std::move(rules.grammar);
}

Grammar json_schema_grammar(const Json& schema, std::string_view where) {
  return SchemaCompiler(schema, where).compile();
}

}  // namespace potstill
