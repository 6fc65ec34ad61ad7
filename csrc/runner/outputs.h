#ifndef EDGEQ_RUNNER_OUTPUTS_H_
#define EDGEQ_RUNNER_OUTPUTS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgeq {

/// A file that appears whole or not at all: written under a scratch name in its own folder, then renamed.
/// Without `commit` the scratch file goes with the object.
class WholeFile {
 public:
  WholeFile() = default;
  WholeFile(WholeFile&& other) noexcept { *this = static_cast<WholeFile&&>(other); }
  WholeFile& operator=(WholeFile&& other) noexcept;
  ~WholeFile();

  static Result<WholeFile> create(const std::string& path);

  Status write(const void* data, size_t bytes);
  /// Gives the file its name, replacing what had it. Call once, after the last write.
  Status commit();

 private:
  Status failed() const;

  std::string path_;
  std::string scratch_;
  int file_ = -1;
};

/// A folder that appears whole or not at all, the same way. It must not exist, or be empty.
class WholeFolder {
 public:
  WholeFolder() = default;
  WholeFolder(WholeFolder&& other) noexcept { *this = static_cast<WholeFolder&&>(other); }
  WholeFolder& operator=(WholeFolder&& other) noexcept;
  ~WholeFolder();

  static Result<WholeFolder> create(const std::string& path);

  /// The path under which a file of the folder is to be written.
  std::string add(const std::string& name);
  Status commit();

 private:
  std::string path_;
  std::string scratch_;
  std::vector<std::string> files_;
};

/// Writes a text whole or not at all; "-" is standard output.
Status write_text(const std::string& path, std::string_view text);

/// From here on the first SIGHUP, SIGINT or SIGTERM only makes `check_stopped` fail, so that every scratch
/// file goes; a second one ends the process at once.
void stop_on_signals();
/// An error once a signal has come. Commands call it between their pieces of work.
Status check_stopped();
/// Ends the process as the signal would have, if one has come.
void die_if_stopped();

}  // namespace edgeq

#endif  // EDGEQ_RUNNER_OUTPUTS_H_
