// Which language a text is in, by its function words: enough to tell English from its neighbours.
#pragma once

#include <string>
#include <string_view>

namespace potstill {

// "de", "es", "fr", "it", "nl" or "pt" when the text holds clearly more of that language's function words than of
// English's; "" otherwise: English, too short to tell, or another language with other letters.
std::string foreign_language(std::string_view text);

}  // namespace potstill
