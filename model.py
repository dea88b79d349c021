"""
The GPT: nanoGPT's decoder-only transformer in one file, plus `mlp_expansion`.

Module and parameter names are nanoGPT's (transformer.wte, transformer.h.0.attn.c_attn, ...), so
checkpoints of the nanoGPT family load here and ours load there. Nothing here is run by itself:
train_with_eval.py trains the model, eval_utils.py loads it and asks it questions.

Sources: nanoGPT (https://github.com/karpathy/nanoGPT); GPT-2 (Radford et al., 2019).
"""

import math
import os
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

GPT2_MODELS = ('gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl')  # 124M, 350M, 774M, 1558M parameters
# GPT-2's own code multiplies from the other side, so these matrices are stored transposed
CONV1D = ('attn.c_attn.weight', 'attn.c_proj.weight', 'mlp.c_fc.weight', 'mlp.c_proj.weight')


@dataclass
class GPTConfig:
    """The shape of a model. A checkpoint's `model_args` holds these fields, see model_args().

    Raises ValueError when a size is not positive or the heads do not divide the width.
    """
    block_size: int = 1024
    vocab_size: int = 50304  # GPT-2's 50257, padded up to a multiple of 64 for speed
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True  # biases in Linears and LayerNorms, like GPT-2
    mlp_expansion: int = 4  # hidden width of the MLP, in multiples of n_embd
    activation: str = 'gelu'  # 'gelu_new': its tanh approximation, which GPT-2 was trained with

    def __post_init__(self):
        for name in ('block_size', 'vocab_size', 'n_layer', 'n_head', 'n_embd', 'mlp_expansion'):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.n_embd % self.n_head != 0:
            raise ValueError(f"n_embd must be a multiple of n_head, but {self.n_embd} is not a multiple of {self.n_head}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        if self.activation not in ('gelu', 'gelu_new'):
            raise ValueError(f"activation must be 'gelu' or 'gelu_new', not {self.activation!r}")

    def model_args(self):
        """The fields as a checkpoint has them: the activation only where it is not nanoGPT's exact GELU, which is to
        say in models that began as GPT-2."""
        return {key: value for key, value in asdict(self).items() if key != 'activation' or value != 'gelu'}


class LayerNorm(nn.Module):
    """LayerNorm with an optional bias."""

    def __init__(self, ndim, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ndim))
        self.bias = nn.Parameter(torch.zeros(ndim)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):

    def __init__(self, config):
        super().__init__()
        # key, query, value projections for all heads, but in a batch
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head = config.n_head
        self.n_embd = config.n_embd
        self.dropout = config.dropout

    def forward(self, x):
        B, T, C = x.size()  # batch size, sequence length, embedding dimensionality (n_embd)
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        if x.device.type == 'cpu' and T <= 64:
            # CPU's fused kernel is made for long sequences; for a few positions plain matmuls are faster.
            future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(future, float('-inf'))
            att = self.attn_dropout(F.softmax(att, dim=-1))
            y = att @ v  # (B, nh, T, T) x (B, nh, T, hs) -> (B, nh, T, hs)
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, C)  # re-assemble all head outputs side by side
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.mlp_expansion * config.n_embd, bias=config.bias)
        self.gelu = nn.GELU(approximate='tanh' if config.activation == 'gelu_new' else 'none')
        self.c_proj = nn.Linear(config.mlp_expansion * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            wpe=nn.Embedding(config.block_size, config.n_embd),
            drop=nn.Dropout(config.dropout),
            h=nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            ln_f=LayerNorm(config.n_embd, bias=config.bias),
        ))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight  # weight tying: https://paperswithcode.com/method/weight-tying

        self.apply(self._init_weights)
        # residual projections are scaled down with depth, per the GPT-2 paper
        for name, p in self.named_parameters():
            if name.endswith('c_proj.weight'):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layer))

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if getattr(module, 'bias', None) is not None:
                nn.init.zeros_(module.bias)

    def get_num_params(self, non_embedding=True):
        """Number of parameters; by default without the position embeddings, as nanoGPT counts them.

        The token embeddings stay in: they are tied to the output layer, so they are its weights.
        """
        n_params = sum(p.numel() for p in self.parameters())
        if non_embedding:
            n_params -= self.transformer.wpe.weight.numel()
        return n_params

    def forward(self, idx, targets=None, last=None):
        """Next-token logits, and the loss where there are targets.

        idx: (B, T) int64 token ids, T <= block_size. targets: (B, T) int64, -1 where nothing is asked.
        last: (B,) int64, the last position of each row where rows are padded on the right; default T - 1.
        Returns (logits, loss): with targets, logits (B, T, vocab_size) and the mean cross-entropy in nats;
        without, the last position's logits (B, 1, vocab_size) and None.
        """
        T = idx.size(1)
        if T > self.config.block_size:
            raise ValueError(f"sequence of length {T} does not fit block_size {self.config.block_size}")
        pos = torch.arange(T, dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))  # (B, T, n_embd)
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if targets is None:
            # only the last position is needed to go on
            x = x[:, [-1], :] if last is None else x[torch.arange(len(x), device=x.device), last][:, None]
            return self.lm_head(x), None
        logits = self.lm_head(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1)
        return logits, loss

    def crop_block_size(self, block_size):
        """Shorten the context to `block_size` positions ("model surgery"), e.g. of a loaded GPT-2."""
        if not 0 < block_size <= self.config.block_size:
            raise ValueError(f"cannot crop block_size {self.config.block_size} to {block_size}")
        self.config.block_size = block_size
        # a copy, for a checkpoint of a view would hold all of the positions
        self.transformer.wpe.weight = nn.Parameter(self.transformer.wpe.weight[:block_size].detach().clone())

    @classmethod
    def from_pretrained(cls, name_or_path, override_args=None):
        """GPT-2 with its trained weights, through Hugging Face transformers; in eval mode, on the CPU.

        name_or_path: one of GPT2_MODELS, downloaded when first used, or a folder with such a model, as save_pretrained
        writes it. override_args: nothing but {'dropout': p}, as in nanoGPT; by default 0.0. The activation is that of
        the model's own config: for OpenAI's weights the tanh approximation of GELU, where nanoGPT has the exact one.
        Raises ImportError without transformers, OSError where the weights cannot be had, ValueError where they are not
        those of a GPT-2 that this class can compute, each with one sentence.
        """
        other = (override_args or {}).keys() - {'dropout'}
        if other:
            raise ValueError(f"only dropout can be overridden, not {min(other)}")
        hf_model = load_transformers_gpt2(name_or_path)
        cfg = hf_model.config
        activation = {'gelu_pytorch_tanh': 'gelu_new'}.get(cfg.activation_function, cfg.activation_function)
        hidden = cfg.n_inner or 4 * cfg.n_embd
        usual = dict(layer_norm_epsilon=1e-5, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
                     add_cross_attention=False, tie_word_embeddings=True)
        unusual = [key for key, value in usual.items() if getattr(cfg, key) != value]
        if unusual or hidden % cfg.n_embd or activation not in ('gelu', 'gelu_new'):
            key = unusual[0] if unusual else 'n_inner' if hidden % cfg.n_embd else 'activation_function'
            raise ValueError(f"{name_or_path} is a GPT-2 of a kind that cannot be computed here: its config.json has "
                             f"{key}={getattr(cfg, key)!r}")
        model = cls(GPTConfig(block_size=cfg.n_positions, vocab_size=cfg.vocab_size, n_layer=cfg.n_layer,
                              n_head=cfg.n_head, n_embd=cfg.n_embd, bias=True, mlp_expansion=hidden // cfg.n_embd,
                              activation=activation, **override_args or {}))
        theirs = hf_model.state_dict()
        model.load_state_dict({key: theirs[key].t() if key.endswith(CONV1D) else theirs[key]
                               for key in model.state_dict()})
        return model.eval()

    def save_pretrained(self, folder):
        """Write the model to a folder that transformers' GPT2LMHeadModel.from_pretrained loads, with equal logits.

        Biases that this model does not have become zeros. The vocabulary is not written: transformers has no
        character-level tokenizer for it. Raises ImportError without transformers, OSError where it cannot write.
        """
        transformers = import_transformers()
        cfg = self.config
        hf_model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=cfg.vocab_size, n_positions=cfg.block_size, n_embd=cfg.n_embd, n_layer=cfg.n_layer,
            n_head=cfg.n_head, n_inner=cfg.mlp_expansion * cfg.n_embd, activation_function=cfg.activation,
            resid_pdrop=cfg.dropout, embd_pdrop=cfg.dropout, attn_pdrop=cfg.dropout,
            bos_token_id=None, eos_token_id=None))
        state = {key: torch.zeros_like(value) for key, value in hf_model.state_dict().items()}
        state.update({key: value.t() if key.endswith(CONV1D) else value for key, value in self.state_dict().items()})
        hf_model.load_state_dict(state)
        os.makedirs(folder, exist_ok=True)  # transformers itself would only log it where it cannot
        hf_model.save_pretrained(folder)

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        """AdamW that decays matrices and embeddings but neither biases nor LayerNorms.

        Fused (all parameters updated by one kernel) on the devices where torch has that.
        """
        params = [p for p in self.parameters() if p.requires_grad]
        decay_params = [p for p in params if p.dim() >= 2]
        nodecay_params = [p for p in params if p.dim() < 2]
        optim_groups = [
            {'params': decay_params, 'weight_decay': weight_decay},
            {'params': nodecay_params, 'weight_decay': 0.0},
        ]
        fused = device_type in ('cuda', 'cpu', 'mps')
        return torch.optim.AdamW(optim_groups, lr=learning_rate, betas=betas, fused=fused)

    def estimate_mfu(self, fwdbwd_per_iter, dt, flops_promised=312e12):
        """Model FLOPs utilisation: achieved over promised FLOP/s (PaLM paper, appendix B).

        fwdbwd_per_iter: sequences per iteration. dt: seconds per iteration.
        flops_promised: peak of the device in FLOP/s; the default is an A100's in bfloat16.
        """
        cfg = self.config
        head_size = cfg.n_embd // cfg.n_head
        flops_per_token = 6 * self.get_num_params() + 12 * cfg.n_layer * cfg.n_head * head_size * cfg.block_size
        flops_per_iter = flops_per_token * cfg.block_size * fwdbwd_per_iter
        return flops_per_iter / dt / flops_promised

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
        """Continue idx (B, T) by max_new_tokens sampled tokens; returns (B, T + max_new_tokens).

        The plain loop of nanoGPT. eval_utils.generate_batch is the fast one, and is tested against this.
        Put the model in eval() mode first.
        """
        for _ in range(max_new_tokens):
            idx_cond = idx[:, -self.config.block_size:]
            logits, _ = self(idx_cond)
            logits = logits[:, -1, :] / temperature
            if top_k is not None:
                v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
                logits[logits < v[:, [-1]]] = -float('inf')
            probs = F.softmax(logits, dim=-1)
            idx = torch.cat((idx, torch.multinomial(probs, num_samples=1)), dim=1)
        return idx


# -----------------------------------------------------------------------------
# weights of GPT-2, through transformers

def import_transformers():
    """Hugging Face transformers, without its progress bars and reports. Optional, so imported only where it is used."""
    try:
        import transformers
    except ImportError as e:
        raise ImportError("GPT-2's weights need transformers, which cannot be imported "
                          f"({' '.join(str(e).split())}): pip install transformers") from e
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_transformers_gpt2(name_or_path):
    """transformers' GPT2LMHeadModel of a name or folder; exceptions as GPT.from_pretrained says."""
    is_folder = os.path.isdir(name_or_path)
    if not is_folder and name_or_path not in GPT2_MODELS:
        raise ValueError(f"{name_or_path} is neither a folder nor one of {', '.join(GPT2_MODELS)}")
    if is_folder and not os.path.exists(os.path.join(name_or_path, 'config.json')):
        raise ValueError(f"{name_or_path} holds no GPT-2 in the form of transformers: it has no config.json")
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name_or_path, local_files_only=is_folder)
        if config.model_type == 'gpt2':
            model, report = transformers.GPT2LMHeadModel.from_pretrained(
                name_or_path, config=config, local_files_only=is_folder, output_loading_info=True)
    except OSError as e:
        hint = "" if is_folder else ": connect to the network once, or name a folder that holds them"
        reason = str(e).splitlines()[0].rstrip('.')
        raise OSError(f"the weights of {name_or_path} cannot be had ({reason}){hint}") from e
    except Exception as e:  # damaged files make json, safetensors and torch raise nearly anything
        raise ValueError(f"the weights of {name_or_path} cannot be read ({type(e).__name__}): they are damaged, or do "
                         "not fit its config.json") from e
    if config.model_type != 'gpt2':
        raise ValueError(f"{name_or_path} holds no GPT-2, but a model of type {config.model_type!r}")
    # transformers would draw what is missing at random; causal masks were saved with the weights by its early versions
    wrong = {*report['missing_keys'], *report['unexpected_keys']}
    wrong = [key for key in wrong if not key.endswith(('.attn.bias', '.attn.masked_bias'))]
    if wrong:
        raise ValueError(f"the weights of {name_or_path} do not fit its config.json: "
                         f"{min(wrong)} is missing or unknown")
    return model
