// The GPUs that LibTorch can use.
#pragma once

namespace potstill {

int num_gpus();           // 0 in a build without CUDA, or where there is none
void use_gpu(int index);  // what the devices "auto" and "cuda" mean from now on

}  // namespace potstill
