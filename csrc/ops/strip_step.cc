#include "ops/strip_step.h"

#include <algorithm>

namespace edgeq {
namespace {

// A strip's rings share the second-level cache with the weights and with the input and output rows.
constexpr int64_t kRingBytes = 128 * 1024;
// A product over fewer pixels would read its weights for too little work.
constexpr int64_t kLeastPixels = 96;

int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/// The most rows of step `index` that are alive at a time, for every step but the last, and bytes of all
/// rings, when the last step computes `rows` rows.
std::vector<int64_t> ring_rows(const std::vector<const RowStep*>& chain, int64_t rows) {
  std::vector<int64_t> rings(chain.size() - 1);
  for (size_t i = chain.size() - 1; i-- > 0;) {
    const RowStep& next = *chain[i + 1];
    rows = (rows - 1) * next.window.stride_h + next.window.span_h();
    // Those of a step that computes some at a time may come before they are needed.
    rows = std::min(chain[i]->out_h, rows + chain[i]->rows_together - 1);
    rings[i] = rows;
  }
  return rings;
}

int64_t rings_bytes(const std::vector<const RowStep*>& chain, int64_t rows) {
  const std::vector<int64_t> rings = ring_rows(chain, rows);
  int64_t bytes = 0;
  for (size_t i = 0; i < rings.size(); ++i) {
    bytes += align64(rings[i] * chain[i]->out_row_bytes() + kReadSlack);
  }
  return bytes;
}

class StripStep final : public Step {
 public:
  std::vector<std::unique_ptr<Step>> owned;
  std::vector<const RowStep*> chain;
  StripSize size;
  std::vector<RowPlace> rings;  // of every step but the last; base is an offset here
  std::vector<int64_t> ring_offset;
  size_t inner_scratch = 0;

  Work work(int64_t batch) const override {
    Work work;
    work.rows = batch * chain.back()->out_h;
    work.row_grain = 2;  // depthwise kernels compute rows in pairs
    work.overlaps = true;
    work.cost = batch * info.work;
    return work;
  }

  size_t scratch_bytes() const override { return inner_scratch + static_cast<size_t>(size.scratch_bytes); }

  void run(const StepIo& io, const WorkRange& range, uint8_t* scratch) const override {
    const int64_t out_h = chain.back()->out_h;
    for (int64_t row = range.row_begin; row < range.row_end;) {
      const int64_t image = row / out_h;
      const int64_t first = row % out_h;
      const int64_t last = std::min(out_h, first + range.row_end - row);
      run_image(io, image, {first, last}, scratch);
      row += last - first;
    }
  }

 private:
  void run_image(const StepIo& io, int64_t image, RowRange part, uint8_t* scratch) const {
    const size_t count = chain.size();
    const size_t end = count - 1;
    // Place 0 is the input, place i + 1 what step i writes.
    RowPlace places[kMaxSteps + 1];
    const uint8_t* residual[kMaxSteps];
    places[0] = chain.front()->input_rows_of(io.in[0], image);
    places[count] = chain.back()->output_rows_of(io.out, image);
    for (size_t i = 0; i < count; ++i) {
      const uint8_t* operand = io.in[1 + i];
      residual[i] = operand == nullptr ? nullptr : operand + chain[i]->residual_offset(image);
      if (i < end) {
        places[i + 1] = rings[i];
        places[i + 1].base = scratch + inner_scratch + ring_offset[i];
      }
    }
    // Strips of one size, even, rather than a short one at the end.
    const int64_t strips = (part.end - part.begin + size.rows - 1) / size.rows;
    const int64_t rows_a_strip = ((part.end - part.begin + strips - 1) / strips + 1) / 2 * 2;
    int64_t done[kMaxSteps];  // rows of step i below it are computed
    std::fill(done, done + count, int64_t{0});
    for (int64_t y = part.begin; y < part.end; y += rows_a_strip) {
      RowRange rows[kMaxSteps];
      rows[end] = {y, std::min(part.end, y + rows_a_strip)};
      for (size_t i = end; i-- > 0;) rows[i] = chain[i + 1]->input_rows(rows[i + 1]);
      for (size_t i = 0; i < count; ++i) {
        RowRange missing = {std::max(rows[i].begin, done[i]), rows[i].end};
        if (missing.begin >= missing.end) continue;
        const int64_t together = chain[i]->rows_together;
        const int64_t count = (missing.end - missing.begin + together - 1) / together * together;
        missing.end = std::min(chain[i]->out_h, missing.begin + count);
        chain[i]->run_rows(places[i], places[i + 1], residual[i], missing, scratch);
        done[i] = missing.end;
      }
    }
  }

 public:
  static constexpr size_t kMaxSteps = 4;
};

}  // namespace

StripSize strip_size(const std::vector<const RowStep*>& chain) {
  if (chain.size() < 2 || chain.size() > StripStep::kMaxSteps) return {};
  const RowStep& last = *chain.back();
  int64_t whole = 0;
  int64_t narrowest = kLeastPixels;  // of the products
  for (size_t i = 0; i < chain.size(); ++i) {
    if (!chain[i]->is_window()) narrowest = std::min(narrowest, chain[i]->out_w);
    if (i + 1 < chain.size()) whole += chain[i]->out_h * chain[i]->out_row_bytes();
  }
  // Even numbers: depthwise kernels compute rows in pairs.
  const int64_t least = (std::max<int64_t>(2, (kLeastPixels + narrowest - 1) / narrowest) + 1) / 2 * 2;
  const int64_t most = std::max(least, last.out_h / 4 / 2 * 2);
  StripSize size = {least, rings_bytes(chain, least)};
  for (int64_t rows = least + 2; rows <= most; rows += 2) {
    const int64_t bytes = rings_bytes(chain, rows);
    if (bytes > kRingBytes) break;
    size = {rows, bytes};
  }
  // Strips have to save most of what lies between the steps.
  if (2 * size.scratch_bytes > whole || 2 * size.rows > last.out_h) return {};
  return size;
}

Result<std::unique_ptr<Step>> make_strip_step(std::vector<std::unique_ptr<Step>> chain, const StripSize& size,
                                              Target& target) {
  auto strip = std::make_unique<StripStep>();
  strip->size = size;
  strip->owned = std::move(chain);
  for (const auto& step : strip->owned) {
    strip->chain.push_back(step->row_step());
    strip->inner_scratch = std::max(strip->inner_scratch, step->scratch_bytes());
    strip->info.bytes_packed += step->info.bytes_packed;
    strip->info.macs += step->info.macs;
    strip->info.work += step->info.work;
    strip->parts.push_back(step->info);
  }
  strip->inner_scratch = static_cast<size_t>(align64(static_cast<int64_t>(strip->inner_scratch)));
  const std::vector<int64_t> rows = ring_rows(strip->chain, size.rows);
  int64_t offset = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t bytes = strip->chain[i]->out_row_bytes();
    strip->rings.push_back({nullptr, rows[i], bytes});
    strip->ring_offset.push_back(offset);
    offset += align64(rows[i] * bytes + kReadSlack);
  }
  EDGEQ_RETURN_IF_ERROR(
      target.budget->take(static_cast<uint64_t>(size.scratch_bytes), "the rows of a strip"));
  return std::unique_ptr<Step>(std::move(strip));
}

}  // namespace edgeq
