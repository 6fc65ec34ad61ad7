#ifndef EDGEQ_RUNNER_JSON_H_
#define EDGEQ_RUNNER_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace edgeq {

/// Writes JSON with one space of indent a level, as json.dumps(indent=1) does.
class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);

  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(double number);
  JsonWriter& value(int64_t number);
  JsonWriter& value(uint64_t number) { return value(static_cast<int64_t>(number)); }
  JsonWriter& value(int number) { return value(static_cast<int64_t>(number)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }

  template <typename T>
  JsonWriter& field(std::string_view name, const T& content) {
    return key(name).value(content);
  }

  const std::string& text() const { return text_; }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& raw(std::string_view text);
  void separate();
  void quote(std::string_view text);

  std::string text_;
  int depth_ = 0;
  bool first_ = true;  // nothing stands yet in the innermost bracket
  bool after_key_ = false;
};

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_JSON_H_
