#include "trainer/tensorboard.h"

#include <gtest/gtest.h>

#include "core/files.h"

namespace retort {

TEST(TensorBoard, Crc32cOfTheStandardCheckString) { EXPECT_EQ(crc32c("123456789"), 0xe3069283u); }

TEST(TensorBoard, BytesEqualTensorBoardsOwnWriter) {
  const std::string ours =
      tensorboard_header(1700000000.25) +
      tensorboard_scalars(1700000001.5, 1, {{"train/loss", 3.5f}, {"train/learning_rate", 5e-4f}}) +
      tensorboard_scalars(1700000300.5, 300, {{"validation/loss", 0.125f}});
  EXPECT_EQ(ours, read_text(RETORT_GOLDEN "/tensorboard.events"));
}

}  // namespace retort
