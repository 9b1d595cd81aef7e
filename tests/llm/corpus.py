"""Texts of many kinds, for checking the estimate of tokens against a real tokenizer."""
# ruff: noqa: E501 -- one text, one line

import base64
import hashlib

RANDOM_BYTES = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(20))

CORPUS = {
    "english": """The lighthouse keeper's daughter had never seen the sea freeze before. On the morning of the third of January she walked down the ninety-one steps, opened the door, and found that the harbour had turned into a white, creaking plain. "It can't hold," she said aloud; nevertheless she put one boot on it, and then the other. Nobody in the village would have believed her if it weren't for the photographs, which were developed weeks afterwards in Edinburgh.""",
    "german": """Der Donaudampfschifffahrtskapitän überprüfte am frühen Morgen die Außenbeleuchtung seines Schiffes. Obwohl die Straßenbahngesellschaft längst Verspätungen angekündigt hatte, warteten zahlreiche Fahrgäste geduldig auf dem Bahnsteig; einige lasen Zeitung, andere unterhielten sich über die bevorstehenden Bürgermeisterwahlen. „Schöne Grüße an Ihre Frau“, rief jemand.""",
    "french": """Au début de l'été, les élèves préparaient une pièce de théâtre où chaque rôle était joué à tour de rôle. L'œuvre, écrite au XVIIᵉ siècle, parlait d'un garçon naïf qui rêvait d'être reçu à la cour; « c'est déjà ça », répétait-il.""",
    "russian": """Рано утром капитан вышел на палубу и долго смотрел на горизонт. Никто не решался нарушить тишину, пока наконец старый боцман не произнёс: «Погода меняется, надо возвращаться». Через несколько часов начался сильный шторм.""",
    "greek": """Το πρωί ο δάσκαλος άνοιξε το παράθυρο και είδε τη θάλασσα. Οι μαθητές περίμεναν με ανυπομονησία την εκδρομή στο νησί, όπου θα έβλεπαν για πρώτη φορά τον αρχαίο ναό.""",
    "chinese": """清晨，老渔夫推开木门，看见海面上浮着一层薄雾。他已经七十三岁了，却仍然每天划船出海。村里的年轻人大多去了城市工作，只有春节时才回来。“你为什么不休息呢？”孙女问他。他笑了笑，没有回答。""",
    "japanese": """朝早く、駅前の小さなパン屋には長い行列ができていた。店主は三十年間、毎日同じ時間に窯に火を入れてきたという。「今日は特別な日ですから」と彼女は笑いながら、焼きたてのクロワッサンを並べた。""",
    "korean": """아침 일찍 할머니는 시장에 가서 신선한 생선과 채소를 샀다. 비가 올 것 같았지만 우산을 가져가지 않았다. 집으로 돌아오는 길에 오랜 친구를 만나 차를 마시며 이야기를 나누었다.""",
    "arabic": """في الصباح الباكر خرج الصياد إلى البحر وهو يحمل شبكته القديمة. كان الجو باردًا والرياح تهبّ من الشمال، لكنه لم يتردد. قال لابنه: «من يخاف الموج لا يصطاد السمك».""",
    "hindi": """सुबह-सुबह किसान अपने खेत में गया और उसने देखा कि बारिश से फसल को बहुत नुकसान हुआ है। फिर भी उसने हिम्मत नहीं हारी और गाँव वालों से मदद माँगी।""",
    "thai": """เช้าวันหนึ่งชาวประมงพายเรือออกไปกลางทะเลและพบว่าคลื่นสงบผิดปกติ เขาจึงรีบกลับบ้าน""",
    "emoji": """Great job! 🎉🎉🎉 See you at the 🏖️ tomorrow 😀😂🤣 👨‍👩‍👧‍👦 👍🏽👍🏿 ❤️‍🔥 🇩🇪🇯🇵 ✅ ⚠️ ☕ 🧑🏻‍💻🦄🐙""",
    "python": """import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Retry:
    attempts: int = 3
    delays: list[float] = field(default_factory=lambda: [0.1, 0.5, 2.0])

    async def run(self, work):
        for attempt, delay in enumerate(self.delays, start=1):
            try:
                return await asyncio.wait_for(work(), timeout=delay * 10)
            except (TimeoutError, OSError) as exc:
                if attempt >= self.attempts:
                    raise RuntimeError(f"gave up after {attempt!r} tries") from exc
                await asyncio.sleep(delay ** 2 % 7)
""",
    "javascript": """const el=document.querySelectorAll('#app>.item[data-id]');for(let i=0,n=el.length;i<n;i++){el[i].addEventListener('click',e=>{e.preventDefault();fetch(`/api/v1/items/${el[i].dataset.id}?q=${encodeURIComponent(x)}`,{method:'POST',headers:{'Content-Type':'application/json'}}).then(r=>r.ok?r.json():Promise.reject(r.status)).catch(console.error)})}""",
    "numbers": "3.14159265358979 2718281828 1,000,000 0xDEADBEEF 2026-11-22T08:15:30Z +49 30 901820 192.168.178.23 1e-9 42 007 "
    * 3,
    "base64": base64.b64encode(RANDOM_BYTES).decode(),
    "hex": RANDOM_BYTES.hex(),
    "table": """| Name        | Age | City          | Joined     |\n|-------------|----:|:--------------|:----------:|\n| Ada         |  36 | London        | 1833-06-05 |\n| Grace       |  85 | New York      | 1944-07-02 |\n| Bob         |   7 | —             | n/a        |\n""",
    "whitespace": "a\n\n\n\n        b\t\t\tc          d\n \n \n \r\n\r\n" * 10,
    "punctuation": "?!?!... --- ### *** ~~~ &&& (((( [[{{<<>>}}]] @#$%^&*()_+ ;:'\",./\\|`~ " * 5,
    "json": '{"id":"chatcmpl-CTdpFx9Zc3r1KyvGQAuB4mEVJqQkd","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":{"prompt_tokens":13,"completion_tokens":207}}',
    "maths": "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε; ∑ᵢ₌₁ⁿ i² = n(n+1)(2n+1)/6 ≤ ∞, \\int_0^1 \\frac{x^2}{\\sqrt{1-x}}\\,dx",
    "polish": "Wczesnym rankiem rybak wypłynął łodzią na jezioro, żeby złowić szczupaka; niestety wiatr był zbyt silny i musiał zawrócić.",
    "finnish": "Varhain aamulla kalastaja lähti järvelle ja huomasi, että verkot olivat rikkoutuneet. Hän päätti kuitenkin jatkaa matkaansa, koska sääennuste lupasi aurinkoista iltapäivää.",
}
