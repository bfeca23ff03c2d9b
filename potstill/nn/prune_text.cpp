#include "potstill/nn/prune.h"

namespace potstill {

// Plain prose, a dialogue, a recipe, sums and a little code: what a small model is asked about, so that no layer's work
// goes unseen.
std::string_view prune_calibration_text() {
  return R"(The kettle on the stove began to sing, and Maria lifted it before the lid could rattle. Steam is only water that has taken in enough heat to leave the pot; when it meets the cold window it gives the heat back and becomes small drops again. Her grandson had asked her about it the day before, and she had drawn the way of the water on the back of an envelope: sea, cloud, rain, river, and the sea once more.

Question: Why does a bicycle pump get warm when you use it?
Answer: Pushing the handle squeezes the air inside the pump. The air is given energy by the push, its particles move faster, and the metal around it warms up. A part of the warmth also comes from the rubbing of the piston against the wall.

In the spring of 1912 the town council of a fishing port voted to build a second pier. The first one, made of oak, had stood for sixty years, but storms had taken away eleven of its forty posts. The new pier was to cost 18,400 crowns, of which the harbour office would pay half. Only three members spoke against it: they feared that larger ships would bring coal smoke, and that the herring would go elsewhere. They were wrong about the herring and right about the smoke.

"Have you packed the tent?" Tom asked.
"Yes, and the stove, but I can't find the map," said Aylin. "Wasn't it in your blue jacket?"
"I lent the jacket to my brother. Let's ask at the station; they sell maps there, or at least they used to."
She laughed. "Then we'll go by the sun, like everybody did before."

To make a simple bread, mix 500 grams of flour with 10 grams of salt and 7 grams of dry yeast. Add 330 millilitres of lukewarm water and knead the dough for ten minutes, until it is smooth and springs back under a finger. Cover it and leave it in a warm place for an hour. Shape a loaf, let it rise again for half an hour, and bake it at 220 degrees for about 35 minutes. It is done when it sounds hollow if you knock on its bottom.

The heart is a muscle with four rooms. Blood that has given away its oxygen comes into the right side and is pushed to the lungs; blood with fresh oxygen comes back to the left side and is pushed through the rest of the body. Valves between the rooms open in one direction alone, and the sound of their closing is what a doctor hears. A grown person's heart beats some seventy times a minute at rest, which makes more than a hundred thousand beats a day.

A farmer has 24 hens. Each lays 5 eggs a week. If she sells the eggs by the dozen, how many dozens can she sell in two weeks? In one week the hens lay 24 x 5 = 120 eggs. In two weeks that is 240 eggs. Since 240 / 12 = 20, she can sell 20 dozens.

def mean(values):
    """Returns the average of a list of numbers, or None if it is empty."""
    if not values:
        return None
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

Dear Ms. Okafor, thank you for your letter of 3 June. We are sorry to hear that the lamp arrived with a broken shade. A new shade was sent to you this morning and should reach you by Friday; there is no need to return the old one. Please tell us if anything else is missing. With kind regards, the service team.

Plants need light, water and a gas called carbon dioxide to grow. In their green leaves they join water and carbon dioxide into sugar, and they set oxygen free. At night, when there is no light, they use up some of the sugar again, just as animals do. This is why a pond with many water plants is rich in oxygen in the afternoon and poorer before sunrise. Deserts, forests and oceans each have plants that fit them: a cactus keeps water in its thick stem, a pine sheds snow from its needles, and sea grass bends with the current.

Prices rose a little more slowly last month, the statistics office said on Tuesday. Food was 2.1 percent dearer than a year ago, while petrol cost less than in any month since March. Economists had expected a smaller change. The central bank meets again in two weeks; most observers believe that it will wait. "One good month is not yet a trend," said a member of its board, who asked not to be named.

The moon does not shine by itself. It throws back the light of the sun, and as it travels around the earth we see more or less of its lit half: a thin crescent, a half disc, the full moon, and then the same in the other order. It takes the moon about 29 and a half days to go from one full moon to the next. Because it turns once about itself in the time of one journey around us, it always shows us the same face.

Rules of the game: each player gets seven cards, and the rest lie face down in the middle. The youngest begins. On your turn, you may lay a card that has the colour or the number of the one before it; if you have none, draw one. Whoever lays the last card wins the round. Play to 100 points, and be kind to beginners.)";
}

}  // namespace potstill
